"""DDIM against diffusers' scheduler, which X-NeMo's pipeline uses.

The golden file holds what `DDIMScheduler` returned with X-NeMo's settings: the timesteps of 35
steps, every ᾱ, and the first step, with guidance of 2.5, from both halves of a network's output.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from parity.rule import GOLDEN, rule_input

from xactor_jax.diffusion.guidance import guided
from xactor_jax.diffusion.processes import DDPM
from xactor_jax.diffusion.samplers import ddim, ddim_step, leading_levels, trailing_levels

PROCESS = DDPM()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "xnemo_small.npz") as arrays:
        return dict(arrays)


def test_timesteps_and_products_of_the_schedule(golden):
    levels = np.asarray(leading_levels(35))
    np.testing.assert_array_equal(np.round(1000 * levels[:-1]), golden["ddim/timesteps"])
    assert levels[-1] == 0
    # The scheduler multiplies up to 1000 numbers in single precision.
    np.testing.assert_allclose(PROCESS.alpha_bar, golden["ddim/alphas_cumprod"], rtol=1e-5)


def test_the_first_step(golden):
    noise, expected = jnp.asarray(golden["eps/t953"]), golden["ddim/step_t953"]
    z = jnp.asarray(rule_input("xactor-golden-1", "latents", expected.shape))
    levels = leading_levels(35)
    output = guided(noise[1:], noise[:1], 2.5)
    step = ddim_step(PROCESS, output, z, levels[0], levels[1])
    # In between stands a clean sample 40 times as large, in fp32.
    assert np.abs(step - expected).max() < 1e-5 * expected.std()


@pytest.mark.parametrize(("spacing", "steps"), [("leading", 35), ("leading", 4), ("trailing", 4)])
def test_whole_paths_equal_those_of_diffusers(spacing, steps):
    torch = pytest.importorskip("torch")
    schedulers = pytest.importorskip("diffusers")
    scheduler = schedulers.DDIMScheduler(
        beta_start=PROCESS.beta_start,
        beta_end=PROCESS.beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1 if spacing == "leading" else 0,
        timestep_spacing=spacing,
    )
    scheduler.set_timesteps(steps)
    start = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)

    z = torch.from_numpy(start)
    for t in scheduler.timesteps:
        z = scheduler.step(torch.tanh(z + t / 1000), t, z).prev_sample

    levels = {"leading": leading_levels, "trailing": trailing_levels}[spacing](steps)
    ours = ddim(lambda z, level: jnp.tanh(z + level), jnp.asarray(start), levels, PROCESS)
    np.testing.assert_array_equal(np.round(1000 * levels[:-1]), scheduler.timesteps.numpy())
    # The first clean sample is 40 times as large as the noise, in fp32.
    assert np.abs(ours - z.numpy()).max() < 2e-5 * np.abs(z.numpy()).max()
