"""Noise levels of a sequence in training, one for each chunk or frame, without a clean copy.

Beside the staircase of `noise_levels`, which draws for the doubled sequence:

    per chunk      σ_j ~ U(0, 1)                      (Chen et al., arXiv 2407.01392)
    per frame      the same for each frame
    clean prefix   per chunk, but σ_j ~ U(0, prefix_level) for a random number of first chunks
    propagated     never falling in j: a random anchor has σ ~ U(0, 1), and away from it
                   σ_{j-1} ~ U(0, σ_j), σ_{j+1} ~ U(σ_j, 1)
                   (after AR-Diffusion, arXiv 2503.07418, and MiniWorld's CoPP)

What they show of a long context differs: per chunk, a long clean past has no chance at all; the
staircase shows little else, and trains few chunks of each sequence.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.diffusion.noise_levels import staircase


def per_chunk(key: PRNGKeyArray, batch: int, chunks: int) -> Float[Array, "b chunks"]:
    """Independent levels."""
    return jax.random.uniform(key, (batch, chunks))


def clean_prefix(
    key: PRNGKeyArray, batch: int, chunks: int, prefix_level: float
) -> Float[Array, "b chunks"]:
    """Independent levels after a nearly clean prefix of 0 to chunks - 1 chunks."""
    level_key, length_key = jax.random.split(key)
    levels = jax.random.uniform(level_key, (batch, chunks))
    length = jax.random.randint(length_key, (batch, 1), 0, chunks)
    return jnp.where(jnp.arange(chunks) < length, prefix_level * levels, levels)


def propagated(key: PRNGKeyArray, batch: int, chunks: int) -> Float[Array, "b chunks"]:
    """Levels that never fall from chunk to chunk, propagated from a random anchor."""
    anchor_key, level_key, factor_key = jax.random.split(key, 3)
    anchor = jax.random.randint(anchor_key, (batch, 1), 0, chunks)
    level = jax.random.uniform(level_key, (batch, 1))
    factor = jax.random.uniform(factor_key, (batch, chunks))
    index = jnp.arange(chunks)
    before = jnp.cumprod(jnp.where(index < anchor, factor, 1.0)[:, ::-1], axis=1)[:, ::-1]
    after = jnp.cumprod(jnp.where(index > anchor, factor, 1.0), axis=1)
    return jnp.where(index < anchor, level * before, 1 - (1 - level) * after)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LevelMixture:
    """Draws each sequence's levels in one of five ways; shares need not sum to one."""

    per_chunk: float = 0.0
    per_frame: float = 0.0
    clean_prefix: float = 0.0
    propagated: float = 0.0
    staircase: float = 0.0
    prefix_level: float = 0.05
    in_flight: int = 2  # chunks on the staircase

    def __post_init__(self):
        if min(self.shares) < 0 or not any(self.shares):
            raise ValueError(f"shares must not be negative nor all zero: {self.shares}")

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the five ways, in their order above."""
        return (
            self.per_chunk,
            self.per_frame,
            self.clean_prefix,
            self.propagated,
            self.staircase,
        )

    def levels(
        self, key: PRNGKeyArray, batch: int, chunks: int, chunk: int
    ) -> Float[Array, "b frames"]:
        """Levels of `batch` sequences of `chunks` chunks of `chunk` frames."""
        kind_key, *keys = jax.random.split(key, 6)
        by_chunk = [
            per_chunk(keys[0], batch, chunks),
            clean_prefix(keys[2], batch, chunks, self.prefix_level),
            propagated(keys[3], batch, chunks),
            staircase(keys[4], batch, chunks, self.in_flight),
        ]
        drawn = [jnp.repeat(levels, chunk, axis=1) for levels in by_chunk]
        drawn.insert(1, per_chunk(keys[1], batch, chunks * chunk))
        kind = jax.random.categorical(kind_key, jnp.log(jnp.asarray(self.shares)), shape=(batch,))
        return jnp.stack(drawn)[kind, jnp.arange(batch)]
