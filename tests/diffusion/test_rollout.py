"""A new chunk takes its steps from noise to data; a finished one is shown as slightly noisy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.rollout import Rollout

NOISE = np.random.default_rng(0).normal(size=(1, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_chunk_is_updated_once_a_step_from_pure_noise_on(steps):
    given = []

    def denoise(z, level):
        jax.debug.callback(lambda *values: given.append(values), z, level)
        return z / 2 + 1

    rollout = Rollout(chunk=2, context=6, flow=Flow(prediction="sample"), steps=steps)
    chunk = rollout.next_chunk(denoise, NOISE)
    jax.effects_barrier()
    given.sort(key=lambda values: -values[1])
    assert len(given) == steps
    np.testing.assert_allclose([level for _, level in given], np.arange(steps, 0, -1) / steps)
    np.testing.assert_array_equal(given[0][0], NOISE)
    z = NOISE
    for n in range(steps, 0, -1):  # straight towards the clean sample, down to the next level
        clean = z / 2 + 1
        z = clean + (n - 1) / n * (z - clean)
    np.testing.assert_allclose(chunk, z, atol=1e-6)


def test_the_velocity_of_a_point_leads_to_it_in_any_number_of_steps():
    point = jnp.asarray([1.0, -2.0, 0.5])
    for steps in (1, 7):
        rollout = Rollout(chunk=2, context=6, flow=Flow(), steps=steps)
        chunk = rollout.next_chunk(lambda z, level: (z - point) / level, NOISE)
        np.testing.assert_allclose(chunk, np.broadcast_to(point, NOISE.shape), atol=1e-5)


def test_a_finished_chunk_is_scaled_and_labelled_and_gets_no_noise():
    rollout = Rollout(chunk=2, context=6, flow=Flow(), history_level=0.1)
    assert rollout.history == 4
    z, level = rollout.finished(NOISE)
    np.testing.assert_allclose(z, 0.9 * NOISE, rtol=1e-6)
    assert float(level) == pytest.approx(0.1)
