"""Positions and noise levels against their formulas, written out number by number."""

import math

import numpy as np
import pytest
from models.random_weights import compiled, with_random_weights

from xactor_jax.nn.embeddings import (
    NoiseLevelEmbedding,
    interleaved_positions,
    rotate,
    sincos_grid,
    sincos_positions,
    sinusoidal,
)


def test_sinusoidal_holds_cosines_then_sines():
    values, width = [0.0, 0.5, 3.0, 1000.0], 6
    table = [
        [math.cos(v * 10_000 ** (-k / 3)) for k in range(3)]
        + [math.sin(v * 10_000 ** (-k / 3)) for k in range(3)]
        for v in values
    ]
    # An fp32 angle of 1000 is known to 6e-5.
    np.testing.assert_allclose(sinusoidal(np.array(values), width), table, atol=2e-4)


def test_positions_hold_sines_then_cosines():
    table = [
        [math.sin(n * 10_000 ** (-k / 4)) for k in range(4)]
        + [math.cos(n * 10_000 ** (-k / 4)) for k in range(4)]
        for n in range(5)
    ]
    np.testing.assert_allclose(sincos_positions(5, 8), table, atol=1e-6)


def test_the_grid_joins_the_column_and_the_row():
    axis, grid = sincos_positions(3, 4), sincos_grid(3, 8)
    assert grid.shape == (3, 3, 8)
    for row in range(3):
        for column in range(3):
            np.testing.assert_array_equal(grid[row, column], [*axis[column], *axis[row]])


def test_interleaved_positions_alternate_sine_and_cosine():
    table = np.zeros((5, 6))
    for n in range(5):
        for k in range(3):
            table[n, 2 * k] = math.sin(n * 10_000 ** (-2 * k / 6))
            table[n, 2 * k + 1] = math.cos(n * 10_000 ** (-2 * k / 6))
    np.testing.assert_allclose(interleaved_positions(5, 6), table, atol=1e-6)


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(1).normal(size=(1, 6, 2, 8)).astype(np.float32)


def test_rotation_turns_pairs_as_complex_numbers(vectors):
    positions = np.array([[0, 1, 2, 5, 40, 249]])
    pairs = vectors[..., :4] + 1j * vectors[..., 4:]
    turns = positions[0, :, None] * 10_000.0 ** (-np.arange(4) / 4)
    turned = pairs * np.exp(1j * turns)[None, :, None]
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    # An fp32 angle of 249 is known to 2e-5.
    np.testing.assert_allclose(rotate(vectors, positions), expected, atol=2e-4)


def test_products_of_rotated_vectors_depend_on_the_distance_alone(vectors):
    def products(positions):
        turned = np.asarray(rotate(vectors, np.asarray(positions)[None]))
        return np.einsum("bqhd,bkhd->bhqk", turned, turned)

    here, later = products([0, 1, 2, 5, 9, 30]), products([100, 101, 102, 105, 109, 130])
    np.testing.assert_allclose(here, later, atol=1e-3)
    elsewhere = products([0, 2, 4, 10, 18, 60])
    assert np.abs(here - elsewhere).max() > 0.1


def test_a_noise_level_is_embedded_as_its_step_of_a_thousand():
    module = with_random_weights(lambda rngs: NoiseLevelEmbedding(4, 3, rngs=rngs))
    level = np.array([[0.0, 0.002], [0.05, 1.0]], np.float32)
    got = compiled(lambda module, level: module(level), module)(level)
    steps = 1000.0 * level.astype(np.float64)[..., None] * [1.0, 0.01]
    features = np.concatenate([np.cos(steps), np.sin(steps)], axis=-1)
    first, second = (
        (np.asarray(layer.kernel[...]), np.asarray(layer.bias[...]))
        for layer in (module.linear_1, module.linear_2)
    )
    hidden = features @ first[0] + first[1]
    expected = (hidden / (1 + np.exp(-hidden))) @ second[0] + second[1]
    np.testing.assert_allclose(got, expected, atol=1e-3)
