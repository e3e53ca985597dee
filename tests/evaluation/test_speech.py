import wave

import numpy as np
import pytest
from evaluation.flat import brightness, pictures_of, scene

from xactor_jax.data.shards import SAMPLES_PER_FRAME
from xactor_jax.errors import InputError
from xactor_jax.evaluation import speech

RNG = np.random.default_rng(0)


def syllables(frames):
    """A curve in [0, 1] that rises and falls irregularly."""
    rough = np.convolve(RNG.uniform(size=frames + 2), [0.25, 0.5, 0.25], "valid")
    return (rough - rough.min()) / (rough.max() - rough.min())


def spoken(loudness):
    """Sound whose frames have the given root mean square."""
    signs = np.sign(RNG.normal(size=(len(loudness), SAMPLES_PER_FRAME)))
    return (signs * loudness[:, None]).ravel().astype(np.float32)


def write_wave(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.round(32767 * samples).astype("<i2").tobytes())


def test_log_loudness_of_known_levels():
    levels = np.array([0.5, 0.05, 0.0])
    found = speech.log_loudness(spoken(levels))
    np.testing.assert_allclose(found, np.log(levels + 0.5e-4), atol=1e-3)


@pytest.mark.parametrize("late", [0, 1, -5])
def test_the_score_peaks_where_the_mouth_is_late(late):
    opening = syllables(150)
    audio = spoken(np.exp(2 * np.roll(opening, -late) - 3))
    curve = speech.loudness_agreement(opening, audio)
    assert int(np.argmax(curve)) - speech.MOST_LAG == late
    assert curve.max() > 0.9  # rolled ends and the trend differ a little


def test_a_mouth_that_follows_scores_high_and_swapped_sound_does_not():
    heard = {name: spoken(np.exp(2 * syllables(100) - 3)) for name in "abcdef"}

    def act(shown, audio, frames):
        return pictures_of(np.round(60 * (speech.log_loudness(audio) + 4)))

    numbers = speech.unheard(heard, scene([100]), act, brightness, lambda n: None)
    assert numbers["score"] > 0.95
    assert numbers["peak"] == 0
    # Six independent pairs of 100 frames, smoothed over 2: a deviation of about .07.
    assert abs(numbers["swapped"]) < 0.3
    assert numbers["n"] == {"recordings": 6, "frames": 600}


def test_true_footage_is_scored_alike():
    openings = [syllables(75) for _ in range(3)]
    scenes = [scene([0] * 75, spoken(np.exp(2 * opening - 3))) for opening in openings]
    numbers = speech.true_footage(scenes, openings)
    assert numbers["true_peak"] == 0
    assert numbers["true_score"] > 0.95


def test_recordings_are_cut_and_other_files_are_named(tmp_path):
    write_wave(tmp_path / "long.wav", 0.1 * RNG.normal(size=10 * 16_000).clip(-3, 3))
    write_wave(tmp_path / "short.wav", np.zeros(1000))
    (tmp_path / "notes.txt").write_text("not audio")
    usable, refused = speech.recordings(tmp_path, 5)
    assert {name: len(audio) for name, audio in usable.items()} == {"long.wav": speech.LONGEST}
    assert set(refused) == {"short.wav", "notes.txt"}


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(InputError, match="no recording"):
        speech.recordings(tmp_path, 5)
    with pytest.raises(InputError, match="no such folder"):
        speech.recordings(tmp_path / "absent", 5)
