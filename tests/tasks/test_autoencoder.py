"""The autoencoder learns, goes on where it stopped, and leaves weights that others can open."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_models import autoencoder_config, losses, renderer_file, stopped_at
from small_models import quick_compilation as quick_compilation

from xactor_jax.checkpoint import load_weights
from xactor_jax.data.shards import decode_frames, open_shards
from xactor_jax.errors import InputError
from xactor_jax.release import PortraitRenderer
from xactor_jax.tasks import make_task
from xactor_jax.tasks.autoencoder import (
    by_source,
    centres_of,
    frame_weights,
    invariance,
    moved_error,
    reading_error,
    whiteness,
)
from xactor_jax.train import train


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return autoencoder_config(tmp_path_factory)


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


@pytest.fixture(scope="module")
def trained(config, task, tmp_path_factory):
    """The workdir of forty uninterrupted steps from random weights."""
    workdir = tmp_path_factory.mktemp("autoencoder")
    config = config.copy_and_resolve_references()
    config.initial_weights = str(renderer_file(tmp_path_factory))
    assert train(config, task, workdir) == 40
    return workdir


def test_the_loss_falls(trained):
    loss = losses(trained)
    assert len(loss) == 40
    # Noise levels are drawn anew each step; ten steps average them.
    assert loss[-10:].mean() < 0.7 * loss[:3].mean()


def test_a_stopped_training_ends_at_the_same_bits(config, task, trained, tmp_path):
    workdir = stopped_at(trained, 20, tmp_path)
    assert train(config, task, workdir) == 40
    files = (workdir / "model.safetensors", trained / "model.safetensors")
    assert files[0].read_bytes() == files[1].read_bytes()
    np.testing.assert_array_equal(losses(workdir), losses(trained))


def test_held_out_clips_are_scored_and_shown(trained):
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    for source in ("footage", "actor"):
        for name in ("psnr", "psnr_mouth", "psnr_reference", "psnr_reference_mouth"):
            assert 0 < last[f"evaluate/{source}/{name}"] < 60
        with Image.open(trained / "samples" / "step_00000040" / f"{source}.png") as strip:
            assert strip.width >= 4 * 32


def test_the_weights_open_as_a_renderer(task, trained):
    renderer = PortraitRenderer(trained / "model.safetensors")
    assert renderer.config == task.renderer
    basis = load_weights(trained / "model.safetensors")[0]["statistics"]["codec"]["basis"]
    # Principal components: orthonormal, and fitted to the training pictures.
    np.testing.assert_allclose(basis.T @ basis, np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(basis, task.frozen["codec"]["basis"])
    clip = open_shards(task.examples.config.folders[0], "test")[0]
    latents = renderer.encode(decode_frames(clip, range(0, 32))[:, 8:40, 8:40])
    assert latents.shape == (32, 8)
    # Normalised, and another for another mouth.
    np.testing.assert_allclose(latents.std(axis=1), 1, atol=1e-2)
    assert latents.std(axis=0).max() > 1e-3


def test_two_crops_of_one_motion_are_drawn_together():
    draw = np.random.default_rng(0)
    motion, noise = (draw.normal(size=(400, t, 4)).astype(np.float32) for t in (3, 2))
    centres = np.ones((400, 4), np.float32)
    assert invariance(1 + motion, 1 + motion[:, :2], centres) == 0

    def distance(scale):
        again = motion[:, :2] + 0.1 * noise
        return invariance(1 + scale * motion, 1 + scale * again, centres)

    # In units of the variance, 1: what is a hundredth of it away, up to the draw, counts as much.
    np.testing.assert_allclose(distance(1.0), 0.01, rtol=0.1)
    # However little the latents vary there: shrinking all of them, or in one direction, gains
    # nothing. What is left is the part that is no covariance.
    np.testing.assert_allclose(distance(1e-3), distance(1.0), rtol=1e-3)
    slopes = jax.grad(distance)(jnp.ones(4))
    assert np.abs(slopes).max() < 0.1 * distance(1.0)
    np.testing.assert_allclose(distance(jnp.array([1, 1, 1, 0.4])), 0.01, rtol=0.15)


def test_a_moved_picture_is_told_which_way_to_go_from_afar():
    """A bar four pixels off: a step towards it gains nothing at full size, and does at a half."""

    def bar(place):
        return np.zeros((1, 1, 32, 32, 3), np.float32) + (np.arange(32) // 2 == place // 2)[:, None]

    truth, far, near = bar(16), bar(20), bar(18)
    assert np.mean((far - truth) ** 2) == np.mean((near - truth) ** 2)
    errors = [moved_error(each, truth, np.ones((1, 1))) for each in (far, near, truth)]
    assert errors[0] > 1.1 * errors[1] and errors[2] == 0


def test_latents_are_centred_by_source():
    draw = np.random.default_rng(0)
    motion = draw.normal(size=(5, 3, 4)).astype(np.float32)
    is_footage = np.array([True, False, True, True, False])
    expected = np.empty((5, 4))
    for source in (True, False):
        expected[is_footage == source] = motion[is_footage == source].mean(axis=(0, 1))
    np.testing.assert_allclose(centres_of(motion, is_footage), expected, atol=1e-6)


def test_whiteness_asks_for_independent_directions_of_one_size():
    draw = np.random.default_rng(0)
    rows, _ = np.linalg.qr(draw.normal(size=(12, 4)))
    white = np.sqrt(12 * 0.3) * rows.reshape(6, 2, 4)  # covariance 0.3 times the identity
    assert whiteness(jnp.asarray(white), jnp.float32(0.3)) < 1e-6
    # All of the same power in one direction: covariance diag(1.2, 0, 0, 0).
    one = np.concatenate([2 * white[..., :1], np.zeros((6, 2, 3))], axis=-1)
    expected = ((4 - 1) ** 2 + 3) / 4
    np.testing.assert_allclose(whiteness(jnp.asarray(one), jnp.float32(0.3)), expected, rtol=1e-5)


def test_frames_count_inversely_to_what_copying_the_reference_misses():
    copying = np.array([[8.0, 8.0], [1.0, 2.0], [3.0, 2.0]])
    is_footage = np.array([False, True, True])
    usual = by_source(copying, is_footage)
    np.testing.assert_array_equal(usual, [8, 2])
    np.testing.assert_array_equal(by_source(copying, np.zeros(3, bool)), [1, 1])
    # The same share of it counts the same, whatever the source and the frame.
    free = frame_weights(copying, usual, is_footage, 0.0)
    np.testing.assert_allclose(free * copying, 4, rtol=1e-6)  # sqrt(8 * 2)
    held = frame_weights(copying, usual, is_footage, 0.5)
    np.testing.assert_allclose(held[[0, 1, 2], [0, 1, 1]], [4 / 8, 4 / 2, 4 / 2], rtol=1e-6)
    # A frame like its reference counts for no more than (1 + least) / least.
    nothing = frame_weights(np.zeros((1, 1)), usual, np.array([True]), 0.5)
    np.testing.assert_allclose(nothing, 3 * 4 / 2, rtol=1e-6)


def test_only_clips_of_known_motion_teach_the_reading():
    truth = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    mean, deviation = np.full(4, 0.5, np.float32), np.full(4, 2.0, np.float32)
    read = (truth - mean) / deviation
    read[0] += 0.1
    read[1] += 7
    known = np.array([True, False, True])
    # Squared errors of 0.01 and 0 of the two that count.
    np.testing.assert_allclose(reading_error(read, truth, known, mean, deviation), 0.005, rtol=1e-4)
    assert reading_error(read, truth, ~known & False, mean, deviation) == 0


def test_a_task_that_does_not_exist_is_named(config):
    config = config.copy_and_resolve_references()
    config.task = "juggling"
    with pytest.raises(InputError, match=r"juggling.*use autoencoder, motion or video"):
        make_task(config)
