"""Sound arrives whole, on time and at 16 kHz."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soxr
from media.drawn import grey_frames, write_media
from media.heard import all_heard
from scipy.io import wavfile

from xactor_jax.errors import InputError
from xactor_jax.media.audio import Sound, frames_of, read_mono_16k

FP32 = 1e-5  # the rounding of single precision, of values up to 0.5 that pass a filter


def sine(rate: int, seconds: float, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(
        np.float32
    )


def noise(samples: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (samples, channels)).astype(np.float32)


def at_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """What is to be heard of (samples, channels): their mean, resampled all at once."""
    return soxr.resample(samples.mean(axis=1, dtype=np.float32), rate, 16_000)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_becomes_the_same_sine(tmp_path, rate):
    stereo = np.stack([sine(rate, 0.5), np.zeros(rate // 2, np.float32)], axis=1)
    wavfile.write(tmp_path / "a.wav", rate, stereo)
    samples, read_rate = all_heard(tmp_path / "a.wav")
    assert read_rate == rate
    np.testing.assert_array_equal(samples, stereo)
    mono = read_mono_16k(tmp_path / "a.wav")
    assert mono.dtype == np.float32 and len(mono) == 8000
    # The edges ring; inside, soxr's pass band is flat to far below one part in a thousand.
    np.testing.assert_allclose(mono[400:-400], 0.5 * sine(16_000, 0.5)[400:-400], atol=5e-4)


@pytest.mark.parametrize(("kind", "scale"), [(np.int16, 32768), (np.int32, 2**31)])
def test_integers_are_scaled_to_one(tmp_path, kind, scale):
    values = (sine(16_000, 0.1) * scale).astype(kind)
    wavfile.write(tmp_path / "a.wav", 16_000, values)
    samples, _ = all_heard(tmp_path / "a.wav")
    np.testing.assert_allclose(samples[:, 0], values / scale, atol=1e-7)


def test_late_sound_in_a_video_is_preceded_by_silence(tmp_path):
    tone = 0.5 + 0 * sine(16_000, 0.4)
    path = write_media(tmp_path / "a.mkv", grey_frames([9] * 20), audio=tone, late=0.2)
    samples, rate = all_heard(path)
    start = int(np.argmax(samples[:, 0] > 0.25)) / rate
    # Matroska's clock ticks in milliseconds.
    assert abs(start - 0.2) <= 1e-3
    assert not samples[: int(0.19 * rate)].any()


@pytest.mark.parametrize("clock", [0.95, 1.05])
def test_sound_is_heard_when_its_time_stamps_say(tmp_path, clock):
    """Of a file whose sound and clock do not go at one speed, a ramp tells what is heard when."""
    ramp = np.arange(64_000, dtype=np.float32) / 64_000
    path = write_media(tmp_path / "a.mkv", grey_frames([9] * 100), audio=ramp, clock=clock)
    samples, rate = all_heard(path)
    assert abs(len(samples) / rate - 4 * clock) < 0.06
    heard = np.nonzero(samples[:, 0])[0]
    # To the 40 ms that time stamps may jitter by.
    assert np.abs(samples[heard, 0] * 4 - heard / rate / clock).max() < 0.06
    assert len(heard) > 0.94 * len(samples)


def test_a_clock_that_begins_anew_takes_no_sound_away(tmp_path):
    parts = [tmp_path / f"{n}.ogg" for n in (1, 2)]
    for part in parts:
        with av.open(str(part), "w") as container:
            stream = container.add_stream("flac", rate=16_000, layout="mono")
            block = av.AudioFrame.from_ndarray(np.ones((1, 48_000), np.int16), "s16", "mono")
            block.pts, block.rate, block.time_base = 0, 16_000, Fraction(1, 16_000)
            container.mux(stream.encode(block))
            container.mux(stream.encode(None))
    path = tmp_path / "both.ogg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert abs(len(all_heard(path)[0]) / 16_000 - 6) < 0.01


@pytest.mark.parametrize(
    ("rate", "count"),
    # Of the last, what is heard at 16 kHz is no whole number of samples.
    [(8000, 9600), (16_000, 24_000), (44_100, 66_150), (48_000, 72_002)],
)
def test_many_blocks_are_resampled_as_one(tmp_path, rate, count):
    stereo = noise(count, 2)
    wavfile.write(tmp_path / "a.wav", rate, stereo)
    assert sum(1 for _ in Sound(tmp_path / "a.wav")) > 1
    expected = at_16k(stereo, rate)
    assert len(expected) == round(count * 16_000 / rate)
    np.testing.assert_allclose(read_mono_16k(tmp_path / "a.wav"), expected, atol=FP32)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_late_sound_is_resampled_with_the_silence_before_it(tmp_path, rate):
    spoken = noise(rate, 1)
    path = write_media(
        tmp_path / "a.mkv", grey_frames([9] * 30), audio=spoken[:, 0], rate=rate, late=0.2
    )
    stored = np.round(spoken * 32767) / 32768
    whole = np.concatenate([np.zeros((rate // 5, 1)), stored])
    np.testing.assert_allclose(read_mono_16k(path), at_16k(whole, rate), atol=FP32)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("seconds", [0.5, 1.0, 5.0])
def test_so_many_seconds_are_those_of_a_file_that_ends_there(tmp_path, rate, seconds):
    stereo = noise(2 * rate, 2)
    wavfile.write(tmp_path / "a.wav", rate, stereo)
    expected = at_16k(stereo[: round(seconds * rate)], rate)
    heard = read_mono_16k(tmp_path / "a.wav", seconds=seconds)
    assert len(heard) == min(seconds, 2) * 16_000
    np.testing.assert_allclose(heard, expected, atol=FP32)


def test_no_more_is_read_than_is_heard(tmp_path):
    values = sine(16_000, 3.0)
    values[-1] = np.nan
    wavfile.write(tmp_path / "a.wav", 16_000, values)
    assert len(read_mono_16k(tmp_path / "a.wav", seconds=1)) == 16_000
    with pytest.raises(InputError, match="not numbers"):
        read_mono_16k(tmp_path / "a.wav")


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (640, 1), (641, 2), (16_000, 25)])
def test_frames_cover_the_sound(samples, frames):
    assert frames_of(samples) == frames


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, bad):
    values = sine(16_000, 0.1)
    values[7] = bad
    wavfile.write(tmp_path / "a.wav", 16_000, values)
    with pytest.raises(InputError, match="not numbers"):
        read_mono_16k(tmp_path / "a.wav")


def test_unusable_files_are_named(tmp_path):
    wavfile.write(tmp_path / "empty.wav", 16_000, np.zeros(0, np.int16))
    write_media(tmp_path / "silent.mp4", grey_frames([9] * 3))
    (tmp_path / "text.wav").write_text("not sound")
    for name, message in (
        ("none.wav", "no such file"),
        ("empty.wav", "empty"),
        ("silent.mp4", "no audio track"),
        ("text.wav", "not an audio or video file"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_mono_16k(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
