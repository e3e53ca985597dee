"""Which noise level each frame gets in training: diffusion forcing's samplers, and their masks.

Diffusion forcing (Chen et al., arXiv 2407.01392) gives every token a level of its own; here mostly
a chunk of frames. Ways to draw them, for chunks j = 0 ... J - 1:

    independent   σ_j ~ U(0, 1)
    per frame     the same for each frame
    clean prefix  independent, but σ_j ~ U(0, prefix_level) for a random number of first chunks
    propagated    never falling in j: a random anchor has σ ~ U(0, 1), and away from it
                  σ_{j-1} ~ U(0, σ_j), σ_{j+1} ~ U(σ_j, 1)
                  (after AR-Diffusion, arXiv 2503.07418, and MiniWorld's CoPP)
    staircase     σ_j = clip(1 + (j - j*) / A - τ, 0, 1), j* and τ random: A chunks in flight,
                  clean before, pure noise after (FloodDiffusion, arXiv 2512.03520)
    clean history every chunk is noisy, σ_j ~ U(0, 1), and sees a second, clean copy of the chunks
                  before it: tokens = [clean copy | noisy copy] (Self-Forcing's teacher branch)

With a long context independent levels never show a clean past, and the staircase trains few chunks
of each sequence, so training mixes the ways. Clean history is dealt out evenly over the rows of a
batch where its share allows (`Forcing.dealt`), so that the others need no copies. Where it is drawn
by chance all rows use the doubled sequence, and only the mask tells them apart:

    clean  -> clean   j' <= j
    noisy  -> clean   j' <  j   under clean history, if it is not dropped, else nothing
    noisy  -> noisy   j' == j   under clean history, else j' <= j
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

WAYS = ("clean_history", "independent", "per_frame", "clean_prefix", "propagated", "staircase")


def logit_normal(
    key: PRNGKeyArray, shape: tuple[int, ...], mean: float, deviation: float
) -> Float[Array, ...]:
    """Noise levels sigmoid(mean + deviation n): one per picture or clip."""
    return jax.nn.sigmoid(mean + deviation * jax.random.normal(key, shape))


def shifted(levels: Float[Array, "*n"], shift: float) -> Float[Array, "*n"]:
    """Levels moved towards noise, s σ / (1 + (s - 1) σ), or away from it where s is below 1.

    What a chunk will be as a whole, such as its emotion, is settled at the highest levels: below
    them the noisy latents show it. Equation 23 of Esser et al., arXiv 2403.03206.
    """
    return shift * levels / (1 + (shift - 1) * levels)


def independent(key: PRNGKeyArray, batch: int, chunks: int) -> Float[Array, "b chunks"]:
    """Levels that know nothing of each other."""
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Levels:
    """Noise levels of a batch of sequences and of their clean copies."""

    noisy: Float[Array, "b frames"]
    history_label: Float[Array, "b 1"]  # what the network is told of the clean copy
    history_noise: Float[Array, "b 1"]  # the noise the clean copy really carries
    clean_history: Bool[Array, " b"]
    history_seen: Bool[Array, " b"]  # whether noisy chunks under clean history see it at all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forcing:
    """How training draws the levels of a batch; the shares of the six ways need not sum to one."""

    clean_history: float = 0.5
    independent: float = 0.25
    per_frame: float = 0.0
    clean_prefix: float = 0.0
    propagated: float = 0.0
    staircase: float = 0.25
    in_flight: int = 2  # A of the staircase
    prefix_level: float = 0.05
    shift: float = 1.0  # over 1: more noise under clean history and in independent levels
    history_level: float = 0.05  # the clean copy's label is U(0, history_level)
    noised_history: float = 0.5  # share of items whose clean copy really carries that noise
    drop_history: float = 0.05  # share of items under clean history that see none (guidance)

    def __post_init__(self):
        if min(self.shares) < 0 or not any(self.shares):
            raise ValueError(f"shares must not be negative nor all zero: {self.shares}")
        if self.shift <= 0:
            raise ValueError(f"shift={self.shift} must be above 0")

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the six ways, in the order of `WAYS`."""
        return tuple(getattr(self, way) for way in WAYS)

    def dealt(self, batch: int) -> tuple[int, int]:
        """(n, g): of every g rows the first n may be under clean history, the others never are.

        All n are, where a whole number of g rows has the share; else any row may be, by chance.
        """
        share = self._clean_share
        for group in (g for g in range(1, batch + 1) if batch % g == 0):
            if math.isclose(share * group, round(share * group), abs_tol=1e-6):
                return round(share * group), group
        return 1, 1

    @property
    def _clean_share(self) -> float:
        return self.clean_history / sum(self.shares)

    def _kinds(self, key: PRNGKeyArray, batch: int) -> Int[Array, " b"]:
        """Which of `WAYS` each row has."""
        clean_key, other_key = jax.random.split(key)
        first, group = self.dealt(batch)
        chance = min(1.0, self._clean_share * group / max(first, 1))
        clean = jax.random.bernoulli(clean_key, chance, (batch,))
        others = jax.random.categorical(
            other_key, jnp.log(jnp.asarray(self.shares[1:])), shape=(batch,)
        )
        return jnp.where(clean & (np.arange(batch) % group < first), 0, 1 + others)

    def levels(self, key: PRNGKeyArray, batch: int, chunks: int, chunk: int) -> Levels:
        """Draw the levels of `batch` sequences of `chunks` chunks of `chunk` frames."""
        kind_key, history_key, noised_key, drop_key, *keys = jax.random.split(key, 9)
        kind = self._kinds(kind_key, batch)
        free = shifted(independent(keys[0], batch, chunks), self.shift)
        by_chunk = {
            "clean_history": free,
            "independent": free,
            "clean_prefix": clean_prefix(keys[1], batch, chunks, self.prefix_level),
            "propagated": propagated(keys[2], batch, chunks),
            "staircase": staircase(keys[3], batch, chunks, self.in_flight),
        }
        drawn = {way: jnp.repeat(levels, chunk, axis=1) for way, levels in by_chunk.items()}
        drawn["per_frame"] = shifted(independent(keys[4], batch, chunks * chunk), self.shift)
        noisy = jnp.stack([drawn[way] for way in WAYS])[kind, jnp.arange(batch)]

        label = self.history_level * jax.random.uniform(history_key, (batch, 1))
        noised = jax.random.bernoulli(noised_key, self.noised_history, (batch, 1))
        added = jnp.where(noised, label, 0.0)
        seen = ~jax.random.bernoulli(drop_key, self.drop_history, (batch,))
        return Levels(noisy, label, added, kind == WAYS.index("clean_history"), seen)


def fused_snr_weights(
    levels: Float[Array, "b chunks"],
    history: Float[Array, "b chunks"],
    chunk: int,
    *,
    clip: float = 5.0,
    decay: float = 0.96,
) -> Float[Array, "b chunks"]:
    """Weights of the velocity's squared error by what the past tells of a noisy chunk; mean 1.

    With s = ((1 - σ) / σ)² and q = min(s, clip) / clip of the past, and g = decay^chunk,

        C_j = g C_{j-1} + (1 - g) q_j,    C_0 = q_0,    C_{-1} = 0
        weight_j = σ_j² clip (1 - (1 - g C_{j-1}) (1 - q(σ_j)))

    the fused min-SNR weight of diffusion forcing (buoyancy99/diffusion-forcing) for a clean sample,
    times σ², which makes it one for the velocity of a straight path.

    Args:
      levels: noise levels of the chunks to predict.
      history: noise levels at which later chunks see each chunk.
    """

    def clipped(level: Array) -> Array:
        snr = ((1 - level) / jnp.maximum(level, 1e-4)) ** 2
        return jnp.minimum(snr, clip) / clip

    kept, known = decay**chunk, clipped(history).T

    def follow(fused: Array, newer: Array) -> tuple[Array, Array]:
        return kept * fused + (1 - kept) * newer, fused

    _, fused = jax.lax.scan(follow, known[0], known[1:])  # C of all chunks but the last
    before = jnp.concatenate([jnp.zeros_like(known[:1]), fused]).T
    weights = levels**2 * clip * (1 - (1 - kept * before) * (1 - clipped(levels)))
    return weights / jnp.maximum(jnp.mean(weights), 1e-6)


def chunk_causal_mask(frames: int, chunk: int) -> Bool[np.ndarray, "frames frames"]:
    """Full attention inside a chunk, causal across chunks; known when compiling."""
    index = np.arange(frames) // chunk
    return index[None, :] <= index[:, None]


def doubled_mask(
    frames: int, chunk: int, clean_history: Bool[Array, " b"], history_seen: Bool[Array, " b"]
) -> Bool[Array, "b 2*frames 2*frames"]:
    """The mask over [clean copy | noisy copy] (module docstring)."""
    index = jnp.arange(frames) // chunk
    query, key = index[:, None], index[None, :]
    doubled = clean_history[:, None, None]
    clean_to_noisy = jnp.zeros((len(clean_history), frames, frames), bool)
    clean_to_clean = jnp.broadcast_to(key <= query, clean_to_noisy.shape)
    noisy_to_clean = doubled & history_seen[:, None, None] & (key < query)
    noisy_to_noisy = jnp.where(doubled, key == query, key <= query)
    top = jnp.concatenate([clean_to_clean, clean_to_noisy], axis=2)
    bottom = jnp.concatenate([noisy_to_clean, noisy_to_noisy], axis=2)
    return jnp.concatenate([top, bottom], axis=1)
