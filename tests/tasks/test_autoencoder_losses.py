"""Terms of the autoencoder's loss, against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from xactor_jax.tasks.autoencoder_losses import (
    by_source,
    centres_of,
    frame_weights,
    invariance,
    moved_error,
    reading_error,
    whiteness,
)


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
    np.testing.assert_array_equal(by_source(copying[1:], is_footage[1:]), [2, 2])
    np.testing.assert_array_equal(by_source(0 * copying, is_footage), [1, 1])
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
    known, even = np.array([True, False, True]), np.ones(4, np.float32)
    # Squared errors of 0.01 and 0 of the two that count.
    error = reading_error(read, truth, known, mean, deviation, even)
    np.testing.assert_allclose(error, 0.005, rtol=1e-4)
    assert reading_error(read, truth, ~known & False, mean, deviation, even) == 0
    # Of what counts four times as much as the rest, an error counts so.
    read[0, :, 1:] -= 0.1
    one = np.array([16, 4, 4, 4], np.float32) / 7
    error = reading_error(read, truth, known, mean, deviation, one)
    np.testing.assert_allclose(error, 0.01 * 16 / 7 / 4 / 2, rtol=1e-4)
