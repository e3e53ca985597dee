"""A new chunk depends on the finished frames that exist, and on no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.random_weights import compiled, with_random_weights

from xactor_jax.diffusion.noise_levels import chunk_causal_mask
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.rollout import Rollout
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig

CONFIG = MotionTransformerConfig(
    latent=2, audio=2, width=8, depth=1, heads=2, feed_forward=1, chunk=2, context=6
)
DRAW = np.random.default_rng(0)
HISTORY = DRAW.normal(size=(1, 4, 2)).astype(np.float32)
NOISE = DRAW.normal(size=(1, 2, 2)).astype(np.float32)


def next_chunk(rollout):
    """(network, history, known) -> the next chunk, with silence for audio."""

    def run(network, history, known):
        def denoise(z, levels, mask):
            n = z.shape[1]
            return network(
                z,
                levels,
                jnp.arange(n)[None],
                mask,
                jnp.zeros((1, n, 2)),
                jnp.zeros((1, n, n), bool),
                jnp.zeros((1, 2)),
                jnp.zeros(1, bool),
            )

        return rollout.next_chunk(denoise, history, known, NOISE)

    return run


@pytest.fixture(scope="module")
def network():
    return with_random_weights(lambda rngs: MotionTransformer(CONFIG, rngs=rngs))


@pytest.fixture(scope="module")
def sampled(network):
    """(history, known) -> the chunk and its derivative by the history."""
    run = next_chunk(Rollout(chunk=2, context=6, flow=Flow(), steps=2))

    def chunk_and_derivative(network, history, known):
        def chunk(history):
            chunk = run(network, history, known)
            return chunk, chunk

        return jax.jacrev(chunk, has_aux=True)(history)[::-1]

    return compiled(chunk_and_derivative, network)


@pytest.mark.parametrize("known", [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
def test_only_known_history_has_influence(sampled, known):
    known = np.array([known], bool)
    chunk, derivative = sampled(HISTORY, known)
    influence = np.abs(derivative).max(axis=(0, 1, 2, 3, 5))
    assert np.all(influence[~known[0]] == 0)
    assert np.all(influence[known[0]] > 1e-6)
    other = np.where(known[..., None], HISTORY, np.float32(np.nan))  # not even as numbers
    np.testing.assert_array_equal(sampled(other, known)[0], chunk)


@pytest.mark.parametrize("frames", [0, 2])
def test_missing_history_is_as_good_as_a_shorter_context(network, sampled, frames):
    short = Rollout(chunk=2, context=2 + frames, flow=Flow(), steps=2)
    history = HISTORY[:, 4 - frames :]
    alone = compiled(next_chunk(short), network)(history, np.ones((1, frames), bool))
    known = np.arange(4)[None] >= 4 - frames
    # The same sums at other (relative) positions, in fp32.
    np.testing.assert_allclose(sampled(HISTORY, known)[0], alone, atol=1e-4)


def test_what_the_network_is_given():
    rollout = Rollout(
        chunk=2, context=6, flow=Flow(prediction="sample"), steps=5, history_level=0.1
    )
    assert rollout.history == 4
    given = []

    def denoise(tokens, levels, mask):
        jax.debug.callback(lambda *values: given.append(values), tokens, levels, mask)
        return jnp.concatenate([tokens[:, :4], tokens[:, 2:4] / 0.9 + 1], axis=1)

    known = np.array([[False, False, True, True]])
    chunk = rollout.next_chunk(denoise, HISTORY, known, NOISE)
    jax.effects_barrier()
    np.testing.assert_allclose(chunk, HISTORY[:, 2:] + 1, atol=1e-6)  # the network's clean sample
    assert len(given) == 5
    given.sort(key=lambda values: -float(values[1][0, -1]))
    np.testing.assert_array_equal(given[0][0][:, 4:], NOISE)
    for (tokens, levels, mask), level in zip(given, [1, 0.8, 0.6, 0.4, 0.2], strict=True):
        np.testing.assert_allclose(tokens[:, :2], 0)
        np.testing.assert_allclose(tokens[:, 2:4], 0.9 * HISTORY[:, 2:], rtol=1e-6)
        np.testing.assert_allclose(levels, [[0.1] * 4 + [level] * 2], atol=1e-6)
        seen = np.asarray(chunk_causal_mask(6, 2)) & [0, 0, 1, 1, 1, 1]
        np.testing.assert_array_equal(mask[0], seen.astype(bool) | np.eye(6, dtype=bool))
