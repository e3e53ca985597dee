"""Speech features: the right band, at the right time, at any recording level."""

import librosa
import numpy as np
import pytest

from xactor_jax.data.audio_features import (
    MelConfig,
    MelStream,
    audio_features,
    recording_gain,
)

CONFIG, RATE, FRAME = MelConfig(), 16_000, 640
SILENT = (-6 + 2.5) / 2  # the floor of 1e-6, scaled


def columns(audio, frames):
    """Features as (frames * hops, bands)."""
    features = audio_features(audio, frames, CONFIG)
    assert features.shape == (frames, CONFIG.width) == (frames, 160)
    assert features.dtype == np.float32
    return features.reshape(frames * CONFIG.hops, CONFIG.bands)


def band_centres():
    """Centres in Hz, evenly spaced on Slaney's mel scale: linear to 1 kHz, then 27 / ln 6.4."""

    def mel(hertz):
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)

    mels = np.linspace(mel(50), mel(7600), 42)[1:-1]
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))


@pytest.mark.parametrize("band", [6, 15, 25, 38])
def test_a_tone_lights_its_band_while_it_sounds(band):
    time = np.arange(20 * FRAME) / RATE
    tone = np.sin(2 * np.pi * band_centres()[band] * time)
    tone[: 5 * FRAME], tone[12 * FRAME :] = 0, 0
    features = columns(tone.astype(np.float32), 20)
    sounding = features[5 * 4 + 2 : 12 * 4 - 2]  # columns whose 32 ms lie in the tone
    assert np.all(sounding.argmax(axis=1) == band)
    assert sounding[:, band].min() > SILENT + 2  # more than 40 dB over silence
    quiet = np.concatenate([features[: 5 * 4 - 2], features[12 * 4 + 2 :]])
    np.testing.assert_allclose(quiet, SILENT, atol=1e-5)


@pytest.mark.parametrize("sample", [700, 3200, 6390, 12_000])
def test_a_click_appears_in_its_own_frame(sample):
    audio = np.zeros(20 * FRAME, np.float32)
    audio[sample] = 0.5
    energy = columns(audio, 20).sum(axis=1)
    # A column is the 512 samples around its hop of 160; the loudest is centred nearest the click.
    assert abs(int(energy.argmax()) * 160 - sample) <= 160
    lit = np.flatnonzero(energy > energy.min() + 1) * 160
    assert np.all(np.abs(lit - sample) <= 256)


@pytest.fixture(scope="module")
def speech():
    noise = np.random.default_rng(0).normal(size=25 * FRAME)
    syllables = np.clip(np.sin(2 * np.pi * 4 * np.arange(25 * FRAME) / RATE), 0.01, 1)
    return (0.1 * noise * syllables).astype(np.float32)


@pytest.mark.parametrize("level", [0.01, 0.3, 5.0])
def test_the_level_of_the_recording_does_not_matter(speech, level):
    np.testing.assert_allclose(
        audio_features(level * speech, 25, CONFIG), audio_features(speech, 25, CONFIG), atol=1e-3
    )


def test_later_speech_is_later_features(speech):
    late = np.concatenate([np.zeros(3 * FRAME, np.float32), speech])
    shifted, plain = audio_features(late, 28, CONFIG)[4:27], audio_features(speech, 25, CONFIG)
    # Three silent frames move the level that counts as loud a little, by one and the same factor.
    difference = shifted - plain[1:24]
    assert np.ptp(difference) < 1e-2
    assert np.abs(difference).max() < 0.1


def test_what_is_beyond_the_end_is_silence_and_what_is_too_long_is_cut(speech):
    longer = audio_features(speech, 30, CONFIG)
    np.testing.assert_allclose(longer[26:], SILENT, atol=1e-5)
    cut = audio_features(speech, 10, CONFIG)
    np.testing.assert_array_equal(cut, audio_features(speech[: 10 * FRAME], 10, CONFIG))


@pytest.mark.parametrize("audio", [np.zeros(0, np.float32), np.zeros(2000, np.float32)])
def test_silence_has_finite_features(audio):
    np.testing.assert_allclose(audio_features(audio, 3, CONFIG), SILENT, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2])
def test_the_shortest_speech_has_features(speech, frames):
    assert np.all(np.isfinite(audio_features(speech[: frames * FRAME - 100], frames, CONFIG)))


@pytest.mark.parametrize("config", [CONFIG, MelConfig(bands=8, hops=1)])
def test_they_are_those_of_the_whole_spectrogram(speech, config):
    power = librosa.feature.melspectrogram(
        y=speech * recording_gain(speech),
        sr=RATE,
        n_fft=512,
        hop_length=FRAME // config.hops,
        n_mels=config.bands,
        fmin=50,
        fmax=7600,
    )
    expected = (np.log10(np.maximum(power, 1e-6)).T[: 25 * config.hops] + 2.5) / 2
    features = audio_features(speech, 25, config)
    # The same in fp32, summed in another order.
    np.testing.assert_allclose(features, expected.reshape(25, -1), atol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, MelConfig(bands=8, hops=1)])
@pytest.mark.parametrize("size", [1, 97, 640, 4000, 100_000])
def test_speech_in_pieces_has_the_same_features_to_the_last_bit(speech, config, size):
    audio = speech[: 6 * FRAME - 123]
    stream, parts = MelStream(config, recording_gain(np.pad(audio, (0, 123)))), []
    for start in range(0, len(audio), size):
        parts.append(stream.push(audio[start : start + size]))
        heard = min(start + size, len(audio))
        # A frame is given as soon as what it says it needs is heard.
        known = sum(map(len, parts))
        assert heard < config.needed(known + 1)
        assert not known or config.needed(known) <= heard
    parts.append(stream.finish())
    np.testing.assert_array_equal(np.concatenate(parts), audio_features(audio, 6, config))


def test_a_recording_is_brought_to_one_level(speech):
    loud = speech * recording_gain(speech)
    levels = np.sqrt(np.mean(loud.reshape(-1, FRAME) ** 2, axis=1))
    assert np.percentile(levels, 90) == pytest.approx(0.1, rel=1e-4)
    assert recording_gain(np.zeros(2000, np.float32)) == 1
    assert recording_gain(np.zeros(0, np.float32)) == 1


def test_long_recordings_are_computed_in_parts(speech):
    long = np.tile(speech, 45)  # 1125 frames; parts hold 1000
    features = audio_features(long, 1125, CONFIG)
    assert features.shape == (1125, CONFIG.width)
    # One second after another is the same but at its ends.
    np.testing.assert_allclose(features[1001:1024], features[26:49], atol=1e-4)
