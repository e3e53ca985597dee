"""Euler's method and DDIM against the known solutions for Gaussian data.

For x ~ N(m, s²), z of the flow at level σ is N((1 - σ) m, V) with V = (1 - σ)² s² + σ². The flow
that carries one of these distributions into the next without crossing keeps (z - (1 - σ) m) / √V
fixed, so noise ε ends at m + s ε.

Denoising diffusion has z ~ N(√ᾱ m, V) with V = ᾱ s² + 1 - ᾱ, and the network's best output is
E[ε | z] = √(1 - ᾱ) (z - √ᾱ m) / V. Put into DDIM's step, this multiplies z - √ᾱ m by
(√(ᾱ ᾱ') s² + √((1 - ᾱ)(1 - ᾱ'))) / V: the path is known exactly for any number of steps.
"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xactor_jax.diffusion.processes import DDPM, Flow
from xactor_jax.diffusion.samplers import (
    ddim,
    ddim_step,
    euler,
    euler_step,
    in_windows,
    leading_levels,
    linear_levels,
    trailing_levels,
)

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


def test_spacings_are_those_of_stable_diffusion():
    leading = np.asarray(leading_levels(35))
    np.testing.assert_allclose(leading, [*np.arange(953, 0, -28) / 1000, 0], atol=1e-7)
    np.testing.assert_allclose(leading_levels(2), [0.501, 0.001, 0], atol=1e-7)
    np.testing.assert_allclose(trailing_levels(4), [0.999, 0.749, 0.499, 0.249, 0], atol=1e-7)
    np.testing.assert_allclose(trailing_levels(3, 10), [0.9, 0.6, 0.2, 0], atol=1e-7)


@pytest.mark.parametrize("spacing", [leading_levels, trailing_levels])
@pytest.mark.parametrize("steps", [0, 1000])
def test_steps_that_do_not_fit_are_refused(spacing, steps):
    with pytest.raises(ValueError, match=f"{steps} steps"):
        spacing(steps)


def best_noise(process, z, level):
    signal, noise = process.scales(level, z)
    variance = signal**2 * DEVIATION**2 + noise**2
    return noise / variance * (z - signal * MEAN)


def exact_end(process, start, levels):
    """Where DDIM ends on Gaussian data, in double precision."""
    alpha_bar = np.append(process.alpha_bar[np.round(1000 * levels[:-1]).astype(int)], 1.0)
    z, variance = np.asarray(start, np.float64), DEVIATION.astype(np.float64) ** 2
    for now, following in pairwise(alpha_bar):
        both = np.sqrt(now * following) * variance + np.sqrt((1 - now) * (1 - following))
        factor = both / (now * variance + 1 - now)
        z = np.sqrt(following) * MEAN + factor * (z - np.sqrt(now) * MEAN)
    return z


@pytest.mark.parametrize("levels", [leading_levels(35), trailing_levels(4), leading_levels(1)])
def test_ddim_takes_the_exact_path_of_gaussian_data(levels):
    process, levels = DDPM(), np.asarray(levels)
    expected = exact_end(process, NOISE, levels)
    got = jax.jit(lambda z: ddim(partial(best_noise, process), z, levels, process))(NOISE)
    # In fp32, divided by signals down to 0.015.
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_ddim_with_many_steps_gives_the_distribution_of_the_data():
    process, levels = DDPM(), leading_levels(999)
    start = process.scales(levels[0], MEAN)[0] * MEAN + NOISE
    got = ddim(partial(best_noise, process), start, levels, process)
    # The method is of first order: a thousand steps are within a percent of the limit.
    np.testing.assert_allclose(got, MEAN + DEVIATION * NOISE, atol=0.03)


def test_ddim_reaches_one_known_picture_from_anywhere():
    target, process = np.array([0.25, -3.0], np.float32), DDPM()

    def denoise(z, level):
        signal, noise = process.scales(level, z)
        return (z - signal * target) / noise

    got = ddim(denoise, NOISE, leading_levels(5), process)
    np.testing.assert_allclose(got, np.broadcast_to(target, NOISE.shape), atol=1e-4)


@pytest.mark.parametrize("kind", ["flow", "ddpm"])
def test_windows_of_independent_frames_change_nothing(kind):
    """Frames that do not heed one another are sampled alike alone, whole and in any windows."""
    if kind == "flow":
        flow, levels = Flow(prediction="sample"), linear_levels(4)
        denoise, step = expected_sample, partial(euler_step, flow)
        whole = euler(denoise, NOISE[None], levels, flow)
    else:
        process, levels = DDPM(), leading_levels(4)
        denoise, step = partial(best_noise, process), partial(ddim_step, process)
        whole = ddim(denoise, NOISE[None], levels, process)
    seen = []

    def denoise_window(z, level, window):
        seen.append((float(level), window.tolist()))
        return denoise(z, level)

    covers = [[np.arange(8)], [np.arange(5), np.arange(3, 8)], [np.roll(np.arange(8), 3)]] * 2
    path = list(in_windows(denoise_window, jnp.asarray(NOISE)[None], levels, covers[:4], step))
    assert len(path) == 4
    np.testing.assert_allclose(path[-1], whole, atol=1e-5)
    expected = [
        (float(level), window.tolist())
        for level, cover in zip(levels[:-1], covers, strict=False)
        for window in cover
    ]
    assert seen == expected
