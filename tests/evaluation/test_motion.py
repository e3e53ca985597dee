import numpy as np
import pytest
from evaluation.flat import FlatRenderer, brightness, clip, pictures_of, scene

from xactor_jax.data.audio_features import MelConfig
from xactor_jax.data.shards import SAMPLES_PER_FRAME, open_shards, write_shards
from xactor_jax.errors import InputError
from xactor_jax.evaluation import motion

MEL = MelConfig(bands=12)
RNG = np.random.default_rng(0)


def voice(frames):
    """Noise whose loudness changes from frame to frame, and that loudness."""
    loudness = np.clip(
        np.convolve(RNG.normal(size=frames + 4), np.ones(5) / 5, "valid") + 0.6, 0, 1
    )
    samples = 0.3 * RNG.normal(size=(frames, SAMPLES_PER_FRAME)) * loudness[:, None]
    return np.clip(samples, -1, 1).ravel().astype(np.float32), loudness


def loudness_of(audio, frames):
    return np.sqrt(np.mean(audio[: frames * SAMPLES_PER_FRAME].reshape(frames, -1) ** 2, axis=1))


def acting(late=0):
    """A performer whose face is as bright as the sound is loud, `late` frames later."""

    def act(shown, audio, frames):
        return pictures_of(np.roll(np.round(400 * loudness_of(audio, frames)), late))

    return act


class Silent:
    """A regression that hears nothing."""

    def predict(self, windows):
        return np.zeros(len(windows))


@pytest.mark.parametrize("late", [0, 2, -1])
def test_agreement_gap_and_lag_of_a_performance_of_known_delay(late):
    scenes = []
    for _ in range(4):
        audio, _ = voice(75)
        scenes.append(scene(np.round(400 * loudness_of(audio, 75)), audio))
    openings = [brightness(s.pictures, s.head_box) for s in scenes]
    numbers = motion.footage(
        scenes, openings, acting(late), brightness, Silent(), MEL, lambda n: None
    )
    assert numbers["best_lag"] == late
    assert numbers["ridge"] == 0
    assert numbers["amplitude"] == pytest.approx(1)
    if late == 0:
        assert numbers["right"] == pytest.approx(1)
        # Other voices are independent: 4 x 75 frames, smoothed over 5, leave about .13.
        assert numbers["gap"] > 0.5


def test_windows_hold_the_frames_around_and_repeat_the_ends():
    features = np.repeat(np.arange(5.0), MEL.width).reshape(5, MEL.width)
    windows = motion.mel_windows(features, MEL, reach=2).reshape(5, 5, MEL.bands)
    np.testing.assert_array_equal(windows[0, :, 0], [0, 0, 0, 1, 2])
    np.testing.assert_array_equal(windows[2, :, 3], [0, 1, 2, 3, 4])


def test_ridge_regression_hears_what_is_linear_in_the_spectrum():
    windows = [RNG.normal(size=(60, 20)) for _ in range(6)]
    weights = RNG.normal(size=20)
    ridge = motion.fit_ridge(windows[:5], [w @ weights + 0.3 for w in windows[:5]])
    np.testing.assert_allclose(ridge.predict(windows[5]), windows[5] @ weights + 0.3, atol=0.1)


def test_training_mouths_are_measured_once(tmp_path):
    levels = [np.arange(30) * k for k in (1, 2, 4)]
    clips = [clip(f"c{k}", row, audio=voice(30)[0]) for k, row in enumerate(levels)]
    write_shards(tmp_path, {"train": clips, "test": clips[:1]})
    measured = []

    def meter(pictures, head_box):
        measured.append(len(pictures))
        return brightness(pictures, head_box)

    shards, config = open_shards(tmp_path, "train"), FlatRenderer().config
    cache = tmp_path / "mouths.npz"
    windows, openings = motion.heard_and_seen(shards, config, MEL, meter, cache)
    _, again = motion.heard_and_seen(shards, config, MEL, meter, cache)
    assert measured == [30, 30, 30]
    for row, opening, kept, heard in zip(levels, openings, again, windows, strict=True):
        np.testing.assert_allclose(opening, row / 255, atol=2 / 255)  # JPEG
        np.testing.assert_array_equal(kept, opening)
        assert len(heard) == 30
    with pytest.raises(InputError, match="1 clips of footage"):
        motion.heard_and_seen(open_shards(tmp_path, "test"), config, MEL, meter, cache)
