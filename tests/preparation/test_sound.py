"""Loudness is that of the standard; silence and held tones are told from speech."""

import numpy as np
import pytest
from preparation.spoken import openness, voice

from xactor_jax.preparation import sound
from xactor_jax.preparation.settings import Sound

RATE = 16_000


def sine(frequency: float, seconds: float, level: float) -> np.ndarray:
    """A sine whose amplitude is `level` dB below full scale."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (10 ** (level / 20) * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def test_loudness_is_the_standards():
    # EBU Tech 3341, case 1: a 1 kHz sine at -23 dBFS in both channels is -23 LUFS; in one, 3 less.
    assert abs(sound.loudness(sine(1000, 5, -23)) + 26.0) < 0.1
    assert sound.loudness(np.zeros(RATE, np.float32)) == -np.inf


@pytest.mark.parametrize("gain", [0.1, 1.0])
def test_voices_are_brought_to_one_loudness(gain):
    spoken = gain * voice(openness(100))
    out = sound.normalised(spoken, sound.loudness(spoken), Sound())
    assert abs(sound.loudness(out) + 23) < 0.1
    # It is one gain for all of the clip.
    np.testing.assert_allclose(out * spoken.max(), spoken * out.max(), atol=1e-5)


def test_no_peak_is_cut_off():
    click = 0.01 * voice(openness(100))
    click[5000] = 0.9
    out = sound.normalised(click, sound.loudness(click), Sound())
    assert abs(np.abs(out).max() - 10 ** (-1 / 20)) < 1e-4
    quiet = np.zeros(RATE, np.float32)
    assert not sound.normalised(quiet, sound.loudness(quiet), Sound()).any()


def test_silence_is_the_share_of_quiet_frames():
    spoken = sine(300, 2, -20)
    spoken[RATE:] *= 0.001
    assert abs(sound.silence(spoken) - 0.5) < 0.05
    assert sound.silence(np.zeros(RATE, np.float32)) == 1


def test_chords_are_music_and_voices_are_not():
    chords = [
        sum(sine(base * step * k, 0.8, -20 - 3 * k) for step in (1, 1.26, 1.5) for k in (1, 2, 3))
        for base in (220, 262, 196, 247)
    ]
    music, speech = sound.measure(np.concatenate(chords)), sound.measure(voice(openness(100)))
    assert music.music > 0.7 and speech.music < 0.4
    assert "music" in sound.refusal(music, Sound())
    assert sound.refusal(speech, Sound()) == ""
    assert sound.refusal(sound.measure(0.001 * voice(openness(100))), Sound()).startswith(
        "too quiet"
    )
