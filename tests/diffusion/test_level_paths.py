"""Any level matrix leads from noise to data: on Gaussian data, where the denoiser is known.

For x ~ N(0, S) and z = (1 - σ) x + σ ε with a level for each chunk, E[x | z] is linear in z. Then
so is the whole sampler, and the covariance of what it makes can be computed without drawing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xactor_jax.diffusion.level_matrices import (
    all_at_once,
    annealed_labels,
    autoregressive,
    constant_labels,
    pyramid,
    ramp_labels,
)
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.samplers import follow

CHUNKS, CHUNK = 4, 2
FRAMES = CHUNKS * CHUNK
DISTANCE = np.abs(np.arange(FRAMES)[:, None] - np.arange(FRAMES))
COVARIANCE = 1.5 * 0.7**DISTANCE  # an autoregressive process
SAMPLE = Flow(prediction="sample")


def posterior_mean(z, level):
    """E[x | z] of every row of z (n, frames, 1)."""
    keep, noise = jnp.diag(1 - level[0]), jnp.diag(level[0] ** 2 + 1e-9)
    gain = COVARIANCE @ keep @ jnp.linalg.inv(keep @ COVARIANCE @ keep + noise)
    return (z[..., 0] @ gain.T)[..., None]


def made(levels, denoise=posterior_mean, **arguments):
    """The covariance of the sampler's output: the sampler of every unit vector, multiplied out."""
    units = jnp.eye(FRAMES)[..., None]
    rows = jax.jit(lambda z: follow(denoise, z, jnp.asarray(levels), SAMPLE, CHUNK, **arguments))(
        units
    )[..., 0]
    return np.asarray(rows.T @ rows)


def matrices(steps):
    return {
        "one after the other": autoregressive(CHUNKS, steps),
        "two in flight": pyramid(CHUNKS, steps, 2),
        "all in flight": pyramid(CHUNKS, steps, 4),
        "together": all_at_once(CHUNKS, steps),
    }


@pytest.mark.parametrize("name", matrices(4))
def test_every_path_leads_to_the_data(name):
    with jax.enable_x64(True):
        few, many = (np.abs(made(matrices(steps)[name]) - COVARIANCE).max() for steps in (100, 400))
    # Euler's error falls with the number of steps: a quarter of it for four times as many.
    assert many < 0.03
    assert many < 0.4 * few


def test_levels_drawn_at_random_lead_there_too():
    draw = np.random.default_rng(0)
    falls = draw.exponential(size=(600, CHUNKS))
    falls[draw.random((600, CHUNKS)) < 0.3] = 0  # a chunk may wait
    levels = 1 - np.cumsum(falls, axis=0) / falls.sum(axis=0)
    levels = np.concatenate([np.ones((1, CHUNKS)), levels.clip(0, 1)])
    levels[-1] = 0
    with jax.enable_x64(True):
        assert np.abs(made(levels) - COVARIANCE).max() < 0.05


@pytest.mark.parametrize(
    "labelled",
    [
        lambda levels: constant_labels(levels, 0.02),
        lambda levels: ramp_labels(levels, 0.05),
        lambda levels: annealed_labels(levels, 0.1),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_finished_chunks_are_shown_as_their_label_says(labelled, noise):
    levels = pyramid(CHUNKS, 4, 2)
    labels, shown = labelled(levels), []

    def denoise(z, label):
        jax.debug.callback(lambda *values: shown.append(values), z, label, ordered=True)
        return jnp.ones_like(z)

    added = noise * jnp.ones((1, FRAMES, 1))
    z = jnp.asarray(np.random.default_rng(0).normal(size=(1, FRAMES, 1)), jnp.float32)
    end = follow(denoise, z, levels, SAMPLE, CHUNK, labels=labels, history_noise=added)
    jax.effects_barrier()
    np.testing.assert_allclose(end, np.ones((1, FRAMES, 1)), rtol=1e-6)
    assert len(shown) == len(levels) - 1
    for (given, label), level, said in zip(shown, levels, labels, strict=False):
        np.testing.assert_allclose(label[0], np.repeat(said, CHUNK), rtol=1e-6)
        finished = np.repeat(level == 0, CHUNK)
        expected = 1 - label[0] + noise * label[0]
        np.testing.assert_allclose(given[0, finished, 0], expected[finished], rtol=1e-6)
