"""A new chunk takes its steps from noise to data; a finished one is shown as slightly noisy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.rollout import Rollout
from xactor_jax.diffusion.samplers import follow

NOISE = np.random.default_rng(0).normal(size=(1, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_chunk_is_updated_once_a_step_from_pure_noise_on(steps):
    given = []

    def denoise(z, level):
        jax.debug.callback(lambda *values: given.append(values), z, level)
        return z / 2 + 1

    rollout = Rollout(chunk=2, context=6, flow=Flow(prediction="sample"), steps=steps)
    chunk = follow(denoise, NOISE, rollout.levels(1), rollout.flow, 2)
    jax.effects_barrier()
    given.sort(key=lambda values: -values[1].max())
    assert len(given) == steps
    expected = np.repeat(np.arange(steps, 0, -1)[:, None, None] / steps, 2, axis=2)
    np.testing.assert_allclose([level for _, level in given], expected, rtol=1e-6)
    np.testing.assert_array_equal(given[0][0], NOISE)
    z = NOISE
    for n in range(steps, 0, -1):  # straight towards the clean sample, down to the next level
        clean = z / 2 + 1
        z = clean + (n - 1) / n * (z - clean)
    np.testing.assert_allclose(chunk, z, atol=1e-6)


@pytest.mark.parametrize("flying", [1, 2, 5])
def test_every_chunk_takes_all_steps_whoever_flies_with_it(flying):
    rollout = Rollout(chunk=2, context=20, flow=Flow(), steps=10, chunks_in_flight=flying)
    assert (rollout.in_flight, rollout.history) == (2 * flying, 20 - 2 * flying)
    taken = {n: [1.0] for n in range(8)}
    for number in range(flying - 1 + 8 - flying):  # the first chunks begin one after the other
        begun, first = min(number + 1, flying), max(number + 1 - flying, 0)
        levels = rollout.levels(begun)
        assert levels.shape == (10 // flying + 1, flying)
        assert (np.diff(levels, axis=1) >= 0).all()  # the later the noisier
        for a in range(flying):
            assert levels[0, a] == pytest.approx(taken[first + a][-1])
            taken[first + a] += [level for level in levels[1:, a] if level < 1]
    for n in range(8 - flying):
        np.testing.assert_allclose(taken[n], np.linspace(1, 0, 11), atol=1e-6)


def test_waiting_chunks_are_left_as_they_are():
    rollout = Rollout(chunk=1, context=6, flow=Flow(), steps=4, chunks_in_flight=2)
    z = follow(lambda z, level: z / level[..., None], NOISE, rollout.levels(1), rollout.flow, 1)
    np.testing.assert_array_equal(z[:, 1], NOISE[:, 1])
    np.testing.assert_allclose(z[:, 0], NOISE[:, 0] / 2, rtol=1e-6)


def test_the_velocity_of_a_point_leads_to_it_in_any_number_of_steps():
    point = jnp.asarray([1.0, -2.0, 0.5])
    for steps in (1, 7):
        rollout = Rollout(chunk=2, context=6, flow=Flow(), steps=steps)
        towards = lambda z, level: (z - point) / level[..., None]  # noqa: E731
        chunk = follow(towards, NOISE, rollout.levels(1), rollout.flow, 2)
        np.testing.assert_allclose(chunk, np.broadcast_to(point, NOISE.shape), atol=1e-5)


def test_a_finished_chunk_is_scaled_and_labelled_and_gets_no_noise():
    rollout = Rollout(chunk=2, context=6, flow=Flow(), history_level=0.1)
    z, level = rollout.finished(NOISE, NOISE + 1)
    np.testing.assert_allclose(z, 0.9 * NOISE, rtol=1e-6)
    assert float(level) == pytest.approx(0.1)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"history_level": 1.0}, {"history_level": -0.1}])
def test_what_would_return_noise_is_refused(wrong):
    with pytest.raises(ValueError, match=r"steps|history level"):
        Rollout(**{"chunk": 2, "context": 8, "flow": Flow(), **wrong})
