import numpy as np
import pytest
from evaluation.flat import FlatRenderer, brightness, clip, pictures_of, scene

from xactor_jax.data.shards import open_shards, write_shards
from xactor_jax.errors import InputError
from xactor_jax.evaluation import reenactment
from xactor_jax.models.renderer import Sampling

LEVELS = np.round(120 + 60 * np.sin(np.arange(75) / 4)).astype(int)


def nothing(amount):
    pass


def test_likeness_of_flat_pictures_is_their_difference_in_decibels():
    truth = scene([100, 120, 120])
    numbers = reenactment.likeness(pictures_of([0, 110, 110]), truth)

    def decibels(levels):
        return 10 * np.log10(4 / (levels / 127.5) ** 2)

    # The wrong first frame must not count: it is the reference.
    for where in ("psnr", "psnr_mouth"):
        assert numbers[where] == pytest.approx(decibels(10), abs=1e-3)
        assert numbers[f"{where}_still"] == pytest.approx(decibels(20), abs=1e-3)
    gains = reenactment.with_gains([numbers])
    assert gains["psnr_mouth_gain"] == pytest.approx(20 * np.log10(2), abs=1e-3)


def test_a_perfect_renderer_is_measured_as_perfect():
    scenes = [scene(LEVELS), scene(LEVELS[::-1])]
    openings = [brightness(s.pictures, s.head_box) for s in scenes]
    numbers = reenactment.footage(
        scenes, openings, FlatRenderer(), brightness, nothing, seed=0, sampling=Sampling()
    )
    assert numbers["mouth_r"] == pytest.approx(1)
    assert numbers["mouth_amplitude"] == pytest.approx(1)
    assert numbers["change_ratio"] == pytest.approx(1)
    assert numbers["ssim"] == pytest.approx(1)
    assert numbers["n"] == {"clips": 2, "frames": 150}


def test_half_the_motion_is_measured_as_half():
    scenes = [scene(LEVELS)]
    openings = [brightness(s.pictures, s.head_box) for s in scenes]
    numbers = reenactment.footage(
        scenes, openings, FlatRenderer(0.5), brightness, nothing, seed=0, sampling=Sampling()
    )
    assert numbers["mouth_r"] > 0.999  # levels are rounded to bytes
    assert numbers["mouth_amplitude"] == pytest.approx(0.5, abs=0.01)
    assert numbers["change_ratio"] == pytest.approx(0.5, abs=0.02)


def test_every_frame_is_driven_by_the_driver_and_its_head_boxes():
    renderer, driver = FlatRenderer(), scene(LEVELS[:40])
    driver.head_box[:, 1] += np.arange(40, dtype=np.float32) / 100
    frames = reenactment.reenact(scene([90] * 40), driver, renderer, seed=0, sampling=Sampling())
    np.testing.assert_array_equal(frames, driver.pictures)
    shifts = np.concatenate(renderer.boxes)[:40, 1]
    np.testing.assert_allclose(shifts, np.arange(40) / 100 / 0.6, atol=1e-6)


def test_across_identities_the_truth_is_the_targets_own_rendering(tmp_path):
    clips = [
        clip(f"m{m}_{who}", LEVELS[m:], channel, identity=who, motion=f"m{m}", source="actor")
        for m in (0, 5)
        for who, channel in (("red", 0), ("blue", 2))
    ]
    alone = clip("alone", LEVELS, 1, identity="green", motion="m9", source="actor")
    write_shards(tmp_path, {"test": [*clips, alone]})
    numbers, strip = reenactment.across_identities(
        open_shards(tmp_path, "test"), 5, FlatRenderer(), nothing, seed=0, sampling=Sampling()
    )
    assert numbers["n"] == {"motions": 2, "frames": 2 * reenactment.ACTOR_FRAMES}
    assert numbers["psnr"] > 40  # JPEG keeps a flat colour to a level or two
    assert numbers["psnr_gain"] > 10
    # First red is driven by blue, then blue by red.
    assert strip["rendered"].mean(axis=(1, 2)).argmax(axis=1).tolist() == [0, 2]
    assert strip["driver"].mean(axis=(1, 2)).argmax(axis=1).tolist() == [2, 0]


def test_actors_without_a_shared_motion_cannot_be_used(tmp_path):
    write_shards(tmp_path, {"test": [clip("a", [9] * 30, source="actor")]})
    with pytest.raises(InputError, match="identities_per_take"):
        reenactment.across_identities(
            open_shards(tmp_path, "test"), 5, FlatRenderer(), nothing, seed=0, sampling=Sampling()
        )
