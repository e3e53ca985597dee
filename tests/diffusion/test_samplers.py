"""Euler's method against the known solution for Gaussian data.

For x ~ N(m, s²), z at level σ is N((1 - σ) m, V) with V = (1 - σ)² s² + σ². The flow that carries
one of these distributions into the next without crossing keeps (z - (1 - σ) m) / √V fixed, so
noise ε ends at m + s ε.
"""

import jax
import numpy as np
import pytest

from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.samplers import euler, linear_levels

MEAN, DEVIATION = np.array([1.5, -0.5], np.float32), np.array([0.3, 2.0], np.float32)
NOISE = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)


def expected_sample(z, level):
    """E[x | z]."""
    variance = ((1 - level) * DEVIATION) ** 2 + level**2
    return MEAN + (1 - level) * DEVIATION**2 / variance * (z - (1 - level) * MEAN)


def best_output(prediction):
    def velocity(z, level):
        variance = ((1 - level) * DEVIATION) ** 2 + level**2
        return level / variance * (z - (1 - level) * MEAN) - expected_sample(z, level)

    return {"velocity": velocity, "sample": expected_sample}[prediction]


def sampled(levels, prediction):
    flow, denoise = Flow(prediction=prediction), best_output(prediction)
    return np.asarray(jax.jit(lambda z, levels: euler(denoise, z, levels, flow))(NOISE, levels))


def test_levels_fall_evenly_from_one_to_zero():
    np.testing.assert_allclose(linear_levels(4), [1, 0.75, 0.5, 0.25, 0], atol=1e-7)


@pytest.mark.parametrize("prediction", ["velocity", "sample"])
def test_samples_of_a_gaussian_converge_to_the_flow(prediction):
    truth = MEAN + DEVIATION * NOISE
    errors = [
        np.abs(sampled(linear_levels(steps), prediction) - truth).max() for steps in (50, 100, 400)
    ]
    # A method of first order: the error falls with the step, and is about 1 / steps in size.
    assert errors[2] < 0.02
    assert 1.6 < errors[0] / errors[1] < 2.4
    assert 3.2 < errors[1] / errors[2] < 4.8


def test_the_path_can_be_left_halfway():
    half = sampled(np.linspace(1, 0.5, 201), "velocity")
    variance = 0.25 * DEVIATION**2 + 0.25
    np.testing.assert_allclose(half, 0.5 * MEAN + np.sqrt(variance) * NOISE, atol=0.02)


def test_one_known_picture_is_reached_in_a_single_step():
    target = np.array([0.25, -3.0], np.float32)
    for flow, output in (
        (Flow(prediction="sample"), lambda z, level: target + 0 * z),
        (Flow(prediction="velocity"), lambda z, level: (z - target) / level),
    ):
        got = euler(output, NOISE, linear_levels(1), flow)
        np.testing.assert_allclose(got, np.broadcast_to(target, NOISE.shape), atol=1e-6)
