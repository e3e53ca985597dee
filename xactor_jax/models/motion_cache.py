"""What many passes of the motion transformer have in common, made once: past, sound and levels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float

from xactor_jax.diffusion.noise_levels import chunk_causal_mask
from xactor_jax.nn.attention import KeysAndValues
from xactor_jax.nn.embeddings import rotate

if TYPE_CHECKING:
    from xactor_jax.models.motion_transformer import MotionTransformerConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of finished tokens for the tokens to come, the newest last; of fixed size.

    Keys are kept as they are before rotation, and turned by their place in the cache when used: as
    the oldest leave, the others move to the positions that training knows (Motar and MiniWorld).
    """

    keys: Float[Array, "layers b h heads d"]
    values: Float[Array, "layers b h heads d"]
    known: Bool[Array, " h"]  # False where there is no token yet

    @classmethod
    def empty(cls, config: MotionTransformerConfig, batch: int, frames: int) -> KeyValueCache:
        """Room for so many frames."""
        c = config
        shape = (c.depth, batch, frames, c.heads, c.width // c.heads)
        zeros = jnp.zeros(shape, jnp.dtype(c.dtype))
        return cls(zeros, zeros, jnp.zeros(frames, bool))

    def first(self, frames: int) -> KeyValueCache:
        """The first so many tokens."""
        return KeyValueCache(
            self.keys[:, :, :frames], self.values[:, :, :frames], self.known[:frames]
        )

    def append(self, newer: KeyValueCache, sink: int = 0) -> KeyValueCache:
        """With newer tokens at the end, and as many of the oldest gone.

        sink: the first tokens of all, so many, that stay when the cache is full (StreamingLLM,
          arXiv 2309.17453).
        """
        full = self.known[0]

        def slide(old: Array, new: Array, axis: int) -> Array:
            both = jnp.concatenate([old, new], axis=axis)
            gone, end = new.shape[axis], both.shape[axis]
            slid = jax.lax.slice_in_dim(both, gone, end, axis=axis)
            if not sink:
                return slid
            kept = jax.lax.slice_in_dim(both, 0, sink, axis=axis)
            rest = jax.lax.slice_in_dim(both, sink + gone, end, axis=axis)
            return jnp.where(full, jnp.concatenate([kept, rest], axis=axis), slid)

        return KeyValueCache(
            slide(self.keys, newer.keys, 2),
            slide(self.values, newer.values, 2),
            slide(self.known, newer.known, 0),
        )

    def turned(self) -> Remembered:
        """For passes after these tokens: keys rotated to their places in the cache."""
        places = np.arange(self.keys.shape[2])[None]
        heads_first = "b h heads d -> b heads h d"
        return Remembered(
            [
                (rearrange(rotate(key, places), heads_first), rearrange(value, heads_first))
                for key, value in zip(self.keys, self.values, strict=True)
            ]
        )

    def mask(self, frames: int, chunk: int) -> Bool[Array, "1 {frames} k"]:
        """What new tokens see: everything known, their own chunk, and the new chunks before it."""
        known = jnp.broadcast_to(self.known, (frames, len(self.known)))
        return jnp.concatenate([known, chunk_causal_mask(frames, chunk)], axis=1)[None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Remembered:
    """What every block's self-attention sees of finished tokens, made once for many passes."""

    keys_and_values: list[KeysAndValues]  # of each block, each (b, heads, h, d), keys rotated


Sound = tuple[KeysAndValues, Float[Array, "1 1 w"]]
"""Of a block: keys and values (b, 1 + a, heads, d), and what it says to tokens that hear none."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Heard:
    """What every block's audio attention sees of some sound, made once for many passes."""

    blocks: list[Sound]

    def first(self, frames: int) -> Heard:
        """Of the first so many frames of it."""
        return self._changed(lambda x: x[:, : 1 + frames])

    def copies(self, count: int) -> Heard:
        """Of every sound so many times, one copy of the batch after the other."""
        return self._changed(lambda x: jnp.tile(x, (count, 1, 1, 1)))

    def _changed(self, change: Callable[[Array], Array]) -> Heard:
        return Heard([((change(key), change(value)), none) for (key, value), none in self.blocks])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Modulation:
    """What some noise levels do in every block and at the end, made once for many passes."""

    blocks: list[Float[Array, "*b m d"]]
    output: Float[Array, "*b m d"]
