"""Full-sequence diffusion over windows, against one pass over everything."""

from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_acting import features, make, whole_sequence
from small_models import quick_compilation as quick_compilation
from small_models import random_examples, small_objective

from xactor_jax.acting import perform
from xactor_jax.data.direction import WIDTH, Told, free, tell
from xactor_jax.errors import InputError
from xactor_jax.generate import acting_of
from xactor_jax.motion_sampler import MotionSampling

SAMPLING = MotionSampling(steps=3, audio_guidance=2.0)
REFERENCE = np.ones((1, 3), np.float32)


@pytest.fixture(scope="module")
def made():
    return make(chunk=20, context=20)


def acted(sampler, heard, sampling=SAMPLING):
    return perform(sampler, heard[None], REFERENCE, jax.random.key(0), sampling=sampling)


def test_one_window_is_denoised_as_a_whole(made):
    """Euler steps of the guided network, attention both ways, one level for all frames."""
    sampler, network = made
    frames, window = 20, sampler.config.audio_window
    heard = features(frames + 2 * window)
    forward = whole_sequence(sampler, network, frames)
    # `forward` hears the same features, of which those of the recording lie in the middle.
    frame = np.arange(frames)[:, None] + np.arange(-window, window + 1)
    audible = ((frame >= 0) & (frame < frames))[None]
    mask = np.ones((1, frames, frames), bool)
    z = np.array(jax.random.normal(jax.random.key(0), (1, frames, 3)))
    for k in range(3):
        levels = jnp.full((1, frames), 1 - k / 3)
        told, untold = (
            np.asarray(forward(z, levels, mask, each)) for each in (audible, 0 * audible > 0)
        )
        z = z - (untold + 2.0 * (told - untold)) / 3
    np.testing.assert_allclose(acted(sampler, heard[window:-window])[0], z[0], atol=1e-4)


def test_the_program_that_is_planned_for_it_takes_all_frames():
    objective, _ = small_objective("motion", **{"motion.chunk": 20})
    batch = random_examples(objective, 2)
    params = jax.eval_shape(objective.init, jax.random.key(0))
    found = jax.eval_shape(objective.sampler, params, {}, batch, jax.random.key(0))
    assert found.shape == (2, 20, objective.config.latent)


def test_commands_that_act_in_chunks_refuse_it(made):
    with pytest.raises(InputError, match=r"mine/motion\.safetensors: acts whole recordings only"):
        acting_of(Namespace(checkpoint="mine"), made[0])


def test_what_is_told_of_a_frame_moves_it_and_those_near():
    sampler, _ = make(chunk=20, context=20, direction=WIDTH)
    rows = free(75)
    tell(rows, "yaw", 0.3, slice(70, 75))
    free_one, told = (
        perform(sampler, features(75)[None], REFERENCE, jax.random.key(0), sampling=SAMPLING,
                direction=each)[0]
        for each in (None, Told(rows))
    )  # fmt: skip
    assert np.abs(told - free_one)[70:].max() > 1e-3
    np.testing.assert_array_equal(told[:10], free_one[:10])


@pytest.mark.parametrize("frames", [7, 20, 21, 75])
def test_any_length_is_acted_and_a_frame_hears_what_is_near(made, frames):
    heard = features(frames)
    latents = acted(made[0], heard)
    assert latents.shape == (1, frames, 3) and np.isfinite(latents).all()
    np.testing.assert_array_equal(latents, acted(made[0], heard))
    if frames > 60:
        changed = heard.copy()
        changed[-1] += 1
        other = acted(made[0], changed)
        # Windows that neighbours share carry a change at most a window back in each of the steps.
        assert np.abs(other - latents)[:, -5:].max() > 1e-4
        assert (other == latents)[:, :10].all()
