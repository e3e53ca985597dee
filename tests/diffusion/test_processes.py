"""Rectified flow and denoising diffusion: the conversions undo one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xactor_jax.diffusion.guidance import guided
from xactor_jax.diffusion.processes import DDPM, Flow, expand

DRAW = np.random.default_rng(0)
X, NOISE = (DRAW.normal(size=(2, 5, 3)).astype(np.float32) for _ in range(2))
LEVEL = DRAW.uniform(0.1, 1, size=(2, 5)).astype(np.float32)  # above the floor of 0.05
VELOCITY, SAMPLE = Flow(prediction="velocity"), Flow(prediction="sample")
ROUNDING = {"atol": 2e-5}  # fp32, divided by levels of 0.1 and more


def test_clean_and_pure_noise_are_the_ends_of_the_path():
    flow, zero, one = Flow(), np.zeros((2, 5), np.float32), np.ones((2, 5), np.float32)
    np.testing.assert_array_equal(flow.corrupt(X, NOISE, zero), X)
    np.testing.assert_array_equal(flow.corrupt(X, NOISE, one), NOISE)
    np.testing.assert_allclose(flow.corrupt(X, NOISE, 0.5 * one), (X + NOISE) / 2, **ROUNDING)


def test_velocity_is_the_slope_of_the_path():
    level = jnp.asarray(LEVEL)
    _, slope = jax.jvp(
        lambda level: Flow().corrupt(X, NOISE, level), (level,), (jnp.ones_like(level),)
    )
    true = VELOCITY.velocity(NOISE - X, Flow().corrupt(X, NOISE, level), level)
    np.testing.assert_allclose(slope, true, **ROUNDING)


@pytest.mark.parametrize(("flow", "output"), [(VELOCITY, NOISE - X), (SAMPLE, X)])
def test_a_perfect_output_gives_back_data_and_velocity(flow, output):
    z = flow.corrupt(X, NOISE, LEVEL)
    np.testing.assert_allclose(flow.sample(output, z, LEVEL), X, **ROUNDING)
    np.testing.assert_allclose(flow.velocity(output, z, LEVEL), NOISE - X, **ROUNDING)
    np.testing.assert_allclose(flow.squared_error(output, X, NOISE, LEVEL), 0, **ROUNDING)


def test_conversions_are_inverse_to_each_other_for_any_output():
    z, output = Flow().corrupt(X, NOISE, LEVEL), DRAW.normal(size=X.shape).astype(np.float32)
    sample = VELOCITY.sample(output, z, LEVEL)
    np.testing.assert_allclose(SAMPLE.velocity(sample, z, LEVEL), output, **ROUNDING)
    # Hence both predictions lose the same by the same mistake.
    np.testing.assert_allclose(
        SAMPLE.squared_error(sample, X, NOISE, LEVEL),
        VELOCITY.squared_error(output, X, NOISE, LEVEL),
        rtol=1e-3,
        atol=1e-4,
    )


def test_the_weight_of_a_sample_prediction_stops_growing_at_the_floor():
    flow = Flow(prediction="sample", floor=0.2)
    level = np.array([1.0, 0.5, 0.2, 0.1, 0.0], np.float32)
    error = flow.squared_error(X[0] + 0.3, X[0], NOISE[0], level)
    expected = 0.09 / np.array([1, 0.25, 0.04, 0.04, 0.04])
    np.testing.assert_allclose(error, np.repeat(expected[:, None], 3, axis=1), rtol=1e-4)


def test_half_precision_outputs_are_computed_in_full():
    output = jnp.asarray(X, jnp.bfloat16)
    for flow in (VELOCITY, SAMPLE):
        for value in (
            flow.sample(output, X, LEVEL),
            flow.velocity(output, X, LEVEL),
            flow.squared_error(output, X, NOISE, LEVEL),
        ):
            assert value.dtype == jnp.float32


def test_levels_gain_axes_behind_their_own():
    assert expand(jnp.ones((2, 5)), jnp.ones((2, 5, 3, 4))).shape == (2, 5, 1, 1)
    assert expand(jnp.ones(()), jnp.ones((2, 5))).shape == (1, 1)


def test_an_unknown_prediction_is_named():
    with pytest.raises(ValueError, match="'epsilon'"):
        Flow(prediction="epsilon")


def test_guidance_goes_from_unconditional_over_conditional_and_beyond():
    with_it, without = jnp.asarray([1.0, 4.0]), jnp.asarray([0.0, 2.0])
    np.testing.assert_array_equal(guided(with_it, without, 1.0), with_it)
    np.testing.assert_array_equal(guided(with_it, without, 0.0), without)
    np.testing.assert_array_equal(guided(with_it, without, 2.5), [2.5, 7.0])


DDPM_LEVEL = np.array([0, 0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.953, 0.999], np.float32)
DATA, DDPM_NOISE = DRAW.normal(size=(2, 9, 3)).astype(np.float32)


def test_the_schedule_ends_noisier_than_that_of_stable_diffusion():
    # Products of the published schedule, to the digits that are given.
    timesteps = [1, 100, 250, 500, 750, 900, 953, 999]
    expected = [0.99829, 0.8840, 0.6153, 0.1689, 0.01384, 1.458e-3, 5.636e-4, 2.300e-4]
    np.testing.assert_allclose(DDPM().alpha_bar[timesteps], expected, rtol=5e-4)
    assert DDPM().alpha_bar[0] == pytest.approx(1 - 0.00085)
    # Stable Diffusion's own, with which its decoders were trained, keeps twenty times as much.
    np.testing.assert_allclose(DDPM(beta_end=0.012).alpha_bar[999], 4.66e-3, rtol=5e-4)


def test_a_tenth_of_the_timesteps_covers_the_same_levels():
    coarse = DDPM(timesteps=10)
    signal, noise = coarse.scales(np.float32(0.3), np.ones(()))
    np.testing.assert_allclose(signal**2, coarse.alpha_bar[3], rtol=1e-6)
    np.testing.assert_allclose(signal**2 + noise**2, 1, rtol=1e-6)


def test_noise_keeps_the_variance_of_unit_data():
    z = DDPM().corrupt(DATA, DDPM_NOISE, DDPM_LEVEL)
    signal, noise = DDPM().scales(DDPM_LEVEL, DATA)
    np.testing.assert_allclose(signal**2 + noise**2, 1, rtol=1e-6)
    alpha_bar = DDPM().alpha_bar[np.round(1000 * DDPM_LEVEL).astype(int), None]
    expected = np.sqrt(alpha_bar) * DATA + np.sqrt(1 - alpha_bar) * DDPM_NOISE
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)


def test_the_noise_gives_back_the_data_and_costs_nothing():
    z = DDPM().corrupt(DATA, DDPM_NOISE, DDPM_LEVEL)
    # One over the signal's scale multiplies the rounding of z: up to 66 times 2e-7.
    np.testing.assert_allclose(DDPM().sample(DDPM_NOISE, z, DDPM_LEVEL), DATA, atol=3e-5)
    assert np.all(DDPM().squared_error(DDPM_NOISE, DATA, DDPM_NOISE, DDPM_LEVEL) == 0)
    error = DDPM().squared_error(DDPM_NOISE + 0.5, DATA, DDPM_NOISE, DDPM_LEVEL)
    np.testing.assert_allclose(error, 0.25, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_clean_data_is_finite_and_single_precision_at_the_first_step(dtype):
    z, output = (jnp.asarray(1e3 * each[7], dtype) for each in (DATA, DDPM_NOISE))
    sample = DDPM().sample(output, z, jnp.float32(0.953))
    assert sample.dtype == jnp.float32
    alpha_bar = DDPM().alpha_bar[953]
    z, output = np.asarray(z, np.float64), np.asarray(output, np.float64)
    expected = (z - np.sqrt(1 - alpha_bar) * output) / np.sqrt(alpha_bar)
    assert np.abs(expected).max() > 20_000  # half precision ends at 65504
    np.testing.assert_allclose(sample, expected, rtol=1e-5, atol=0.1)


def test_every_level_means_its_nearest_timestep():
    levels = np.array([0.0004, 0.9528, 0.9531, 1.0], np.float32)
    signal, _ = DDPM().scales(levels, levels)
    np.testing.assert_allclose(signal**2, DDPM().alpha_bar[[0, 953, 953, 999]], rtol=1e-6)
