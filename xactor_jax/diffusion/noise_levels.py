"""Which noise level each chunk gets in training: diffusion forcing's samplers, and their masks.

Diffusion forcing (Chen et al., arXiv 2407.01392) gives every token a level of its own; here a level
belongs to a chunk of frames. Three samplers, each for J chunks:

    independent   σ_j ~ U(0, 1)
    staircase     σ_j = clip(1 + (j - j*) / A - τ, 0, 1), j* and τ random: A chunks in flight,
                  clean before, pure noise after (FloodDiffusion, arXiv 2512.03520)
    clean history every chunk is noisy, σ_j ~ U(0, 1), and sees a second, clean copy of the chunks
                  before it: tokens = [clean copy | noisy copy] (Self-Forcing's teacher branch)

With a long context the first never shows a clean past and the second supervises few chunks, so
training mixes them. To mix inside a batch, all three use the doubled sequence; only the mask tells
them apart:

    clean  -> clean   j' <= j
    noisy  -> clean   j' <  j   under clean history, else nothing
    noisy  -> noisy   j' == j   under clean history, else j' <= j
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray


def logit_normal(
    key: PRNGKeyArray, shape: tuple[int, ...], mean: float, deviation: float
) -> Float[Array, ...]:
    """Noise levels sigmoid(mean + deviation n): one per picture or clip."""
    return jax.nn.sigmoid(mean + deviation * jax.random.normal(key, shape))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forcing:
    """How training draws the levels of a batch; shares need not sum to one."""

    clean_history: float = 0.5
    staircase: float = 0.25
    independent: float = 0.25
    in_flight: int = 2  # A of the staircase
    history_level: float = 0.05  # the clean copy's label is U(0, history_level)
    noised_history: float = 0.5  # share of items whose clean copy really carries that noise
    drop_history: float = 0.05  # share of items whose whole history is pure noise (guidance)

    def levels(self, key: PRNGKeyArray, batch: int, chunks: int) -> Levels:
        """Draw the levels of `batch` sequences of `chunks` chunks."""
        kind_key, free_key, stair_key, history_key, noised_key, drop_key = jax.random.split(key, 6)
        shares = jnp.asarray([self.clean_history, self.staircase, self.independent])
        kind = jax.random.categorical(kind_key, jnp.log(shares), shape=(batch,))
        free = jax.random.uniform(free_key, (batch, chunks))
        stair = staircase(stair_key, batch, chunks, self.in_flight)
        noisy = jnp.where((kind == 1)[:, None], stair, free)

        label = self.history_level * jax.random.uniform(history_key, (batch, 1))
        noised = jax.random.bernoulli(noised_key, self.noised_history, (batch, 1))
        dropped = jax.random.bernoulli(drop_key, self.drop_history, (batch, 1))
        label = jnp.where(dropped, 1.0, label)
        added = jnp.where(noised | dropped, label, 0.0)
        every = jnp.ones((batch, chunks))
        return Levels(noisy, label * every, added * every, kind == 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Levels:
    """Noise levels of a batch of doubled sequences."""

    noisy: Float[Array, "b chunks"]
    history_label: Float[Array, "b chunks"]  # what the network is told of the clean copy
    history_noise: Float[Array, "b chunks"]  # the noise the clean copy really carries
    clean_history: Bool[Array, " b"]


def staircase(
    key: PRNGKeyArray, batch: int, chunks: int, in_flight: int
) -> Float[Array, "b chunks"]:
    """Levels that rise from a clean past to pure noise over `in_flight` chunks."""
    place, phase = jax.random.split(key)
    # Started before the sequence, the stairs also show its first chunks near pure noise.
    first = jax.random.randint(place, (batch, 1), 1 - in_flight, chunks)
    phase = jax.random.uniform(phase, (batch, 1))
    rise = (jnp.arange(chunks)[None] - first + 1 - phase) / in_flight
    return jnp.clip(rise, 0.0, 1.0)


def chunk_causal_mask(frames: int, chunk: int) -> Bool[Array, "frames frames"]:
    """Full attention inside a chunk, causal across chunks."""
    index = jnp.arange(frames) // chunk
    return index[None, :] <= index[:, None]


def doubled_mask(
    frames: int, chunk: int, clean_history: Bool[Array, " b"]
) -> Bool[Array, "b 2*frames 2*frames"]:
    """The mask over [clean copy | noisy copy] (module docstring)."""
    index = jnp.arange(frames) // chunk
    query, key = index[:, None], index[None, :]
    doubled = clean_history[:, None, None]
    clean_to_noisy = jnp.zeros((len(clean_history), frames, frames), bool)
    clean_to_clean = jnp.broadcast_to(key <= query, clean_to_noisy.shape)
    noisy_to_clean = doubled & (key < query)
    noisy_to_noisy = jnp.where(doubled, key == query, key <= query)
    top = jnp.concatenate([clean_to_clean, clean_to_noisy], axis=2)
    bottom = jnp.concatenate([noisy_to_clean, noisy_to_noisy], axis=2)
    return jnp.concatenate([top, bottom], axis=1)


def window_mask(frames: int, audio: int, window: int) -> Bool[Array, "frames audio"]:
    """Frame i hears the audio frames i - window to i + window."""
    return jnp.abs(jnp.arange(frames)[:, None] - jnp.arange(audio)[None]) <= window
