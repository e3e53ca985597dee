"""Attention: the only file that chooses which kernel computes it."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from xactor_jax.nn import kernels
from xactor_jax.nn.layers import Linear, initial_kernel
from xactor_jax.sharding import mesh_size, platform

KeysAndValues = tuple[Float[Array, "b k heads d"], Float[Array, "b k heads d"]]


SCORES = 2**24  # at most so many scores are held at once on each device; 64 MB in fp32
BLOCK = 25  # frames whose windows are seen together; fewer make small products, more waste work


def attention(
    query: Float[Array, "b q heads d"],
    key: Float[Array, "b k heads d"],
    value: Float[Array, "b k heads d"],
    mask: kernels.Mask = None,
    earlier: KeysAndValues | None = None,
) -> Float[Array, "b q heads d"]:
    """Scaled dot-product attention; where the mask is False nothing is seen. Softmax in fp32.

    Long sequences go to the kernels of nn/kernels.py where one suits device and arguments.
    Elsewhere queries are taken in blocks, one after another, so that no more than `SCORES` scores
    exist at a time (or those of a single query): memory grows with the number of tokens and not
    with its square (Rabe and Staats, arXiv 2112.05682), in training too.

    Args:
      earlier: keys and values that come before `key` and `value` in the mask; (b, heads, e, d)
        each, as they are computed with, so that those of many calls are not copied.
    """
    where = platform()
    if where == "tpu" and kernels.suits_splash(query, key, mask, earlier):
        return kernels.splash(query, key, value, mask)
    if where in ("gpu", "cuda") and kernels.suits_cudnn(query, key, mask, earlier):
        return kernels.cudnn(query, key, value, mask)
    q = query.shape[1]
    query, key, value = (rearrange(x, "b n heads d -> b heads n d") for x in (query, key, value))
    count = key.shape[2] + (0 if earlier is None else earlier[0].shape[2])
    of_one_query = math.prod(query.shape[:2]) * count
    blocks = -(-q // max(1, SCORES * mesh_size() // of_one_query))
    if blocks == 1:
        seen = _seen(query, key, value, mask, earlier)
        return rearrange(seen, "b heads n d -> b n heads d")
    rows = -(-q // blocks)
    pad = functools.partial(_padded, rows=rows * blocks)
    query, mask = pad(query), pad(mask)

    @jax.checkpoint
    def block(number: Int[Array, ""]) -> Float[Array, "b heads rows d"]:
        part = functools.partial(_rows, start=number * rows, count=rows)
        return _seen(part(query), key, value, part(mask), earlier)

    parts = jax.lax.map(block, jnp.arange(blocks))
    return rearrange(parts, "blocks b heads rows d -> b (blocks rows) heads d")[:, :q]


def _seen(query, key, value, mask, earlier) -> Float[Array, "b heads q d"]:
    """Attention, its arguments with heads before tokens."""
    precise = jnp.promote_types(query.dtype, jnp.float32)
    scores_of = functools.partial(jnp.einsum, "bhqd,bhkd->bhqk", preferred_element_type=precise)
    scores = scores_of(query, key)
    if earlier is not None:
        scores = jnp.concatenate([scores_of(query, earlier[0]), scores], axis=-1)
    scores = scores * query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, _unseen(precise))
    weights, see = jax.nn.softmax(scores).astype(value.dtype), "bhqk,bhkd->bhqd"
    if earlier is None:
        return jnp.einsum(see, weights, value)
    before, weights = jnp.split(weights, [earlier[1].shape[2]], axis=-1)
    return jnp.einsum(see, before, earlier[1]) + jnp.einsum(see, weights, value)


def _unseen(dtype: Any) -> float:
    """A score of what is not seen; finite, so that a query that sees nothing is no NaN."""
    return 0.7 * float(jnp.finfo(dtype).min)


def _padded(x: Any, rows: int) -> Any:
    """With so many query rows; as it is where all queries share one."""
    if x is None or x.shape[2] == 1:
        return x
    return _lengthened(x, 2, rows)


def _rows(x: Any, start: Int[Array, ""], count: int) -> Any:
    """Some of the query rows, likewise."""
    if x is None or x.shape[2] == 1:
        return x
    return jax.lax.dynamic_slice_in_dim(x, start, count, axis=2)


def windowed_attention(
    query: Float[Array, "b n heads d"],
    keys: Float[Array, "b 1+a heads d"],
    values: Float[Array, "b 1+a heads d"],
    heard: Bool[Array, "b n window"],
    bias: Float[Array, "heads window"],
    block: int = BLOCK,
) -> Float[Array, "b n heads d"]:
    """Attention of the i-th of t frames to those from i to i + window - 1 of a sound.

    Softmax in fp32. Queries are taken in blocks, each against the keys that its frames can hear:
    work and memory grow with frames x window (sliding chunks of Longformer, arXiv 2004.05150).

    Args:
      query: of all frames, once or several times over, one copy after the other.
      keys, values: of silence, whose value is what a token gets that hears nothing; then of the
        sound, a = t + window - 1.
      heard: which frames of its window each token hears.
      bias: added to the scores, by place in the window.
      block: frames of a block at most; it changes the time that is taken and nothing else.

    Raises ValueError where keys and queries are not of the same frames.
    """
    (b, n, heads, d), window = query.shape, heard.shape[2]
    frames = keys.shape[1] - window
    if frames < 1 or n % frames:
        raise ValueError(f"{n} queries for a sound of {frames} frames and a window of {window}")
    count = -(-frames // block)
    block = -(-frames // count)  # blocks of one size waste the least
    reach = block + window - 1

    def in_blocks(x: Array) -> Array:
        """(b, n, ...) -> (b, copies, blocks, block, ...)."""
        x = _lengthened(x.reshape(b, n // frames, frames, *x.shape[2:]), 2, count * block)
        return x.reshape(*x.shape[:2], count, block, *x.shape[3:])

    def windows(x: Array) -> Float[Array, "b blocks reach heads d"]:
        # Whole blocks side by side, since the gradient of a gather is a scatter, which is slow.
        parts = -(-reach // block)
        x = _lengthened(x[:, 1:], 1, (count + parts - 1) * block)
        x = x.reshape(b, -1, block, heads, d)
        x = jnp.concatenate([x[:, first : first + count] for first in range(parts)], axis=2)
        return x[:, :, :reach]

    precise = jnp.promote_types(query.dtype, jnp.float32)
    products, see = "bcjqhd,bjmhd->bjhcqm", "bjhcqm,bjmhd->bcjqhd"
    scores = jnp.einsum(products, in_blocks(query), windows(keys), preferred_element_type=precise)
    by_place = jnp.broadcast_to(bias.astype(precise)[:, None], (heads, block, window))
    scores = scores * d**-0.5 + _sheared(by_place)[:, None]
    mask = rearrange(_sheared(in_blocks(heard)), "b c j q m -> b j 1 c q m")
    weights = jax.nn.softmax(jnp.where(mask, scores, _unseen(precise))).astype(values.dtype)
    seen = jnp.einsum(see, weights, windows(values))
    seen = rearrange(seen, "b c j q heads d -> b c (j q) heads d")[:, :, :frames]
    hears = jnp.any(heard, axis=-1)[..., None, None]
    return jnp.where(hears, seen.reshape(query.shape), values[:, :1])


def spread_over_window(heads: int, reach: int) -> Float[Array, "heads window"]:
    """First biases of audio attention, by place in the window: each head begins around its own.

    Audio frames have no positions; without these a token could not tell its own from the others.
    Learned biases by distance are T5's (Raffel et al., arXiv 1910.10683); this start is ours.
    """
    middle = jnp.linspace(0, 2 * reach, heads) if heads > 1 else jnp.full(1, float(reach))
    return -jnp.abs(jnp.arange(2 * reach + 1) - middle[:, None])


def _lengthened(x: Array, axis: int, size: int) -> Array:
    """With zeros at the end of an axis, up to a size."""
    return jnp.pad(x, [(0, size - n if m == axis else 0) for m, n in enumerate(x.shape)])


def _sheared(x: Array) -> Array:
    """(..., rows, window) -> (..., rows, rows + window - 1): row i moved by i; zeros elsewhere."""
    *around, rows, window = x.shape
    wide = rows + window - 1
    flat = _lengthened(x, x.ndim - 1, wide + 1).reshape(*around, -1)
    return flat[..., : rows * wide].reshape(*around, rows, wide)


class MultiHeadAttention(nnx.Module):
    """Projections around `attention`: queries from `width`, keys and values from `key_width`.

    Without `bias` only the output has one (diffusers Attention).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        key_width: int | None = None,
        bias: bool = False,
        output_init: nnx.Initializer = initial_kernel,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.heads = heads
        key_width = key_width or width
        self.to_q = Linear(width, width, use_bias=bias, dtype=dtype, rngs=rngs)
        self.to_k = Linear(key_width, width, use_bias=bias, dtype=dtype, rngs=rngs)
        self.to_v = Linear(key_width, width, use_bias=bias, dtype=dtype, rngs=rngs)
        self.to_out = Linear(width, width, kernel_init=output_init, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b q d"],
        context: Float[Array, "b k c"] | None = None,
        mask: Bool[Array, "#b #1 #q k"] | None = None,
        further: KeysAndValues | None = None,
    ) -> Float[Array, "b q d"]:
        """What x sees of the context (x itself by default) and, after it, of `further`."""
        keys, values = self.keys_and_values(x if context is None else context)
        if further is not None:
            keys = jnp.concatenate([keys, further[0]], axis=1)
            values = jnp.concatenate([values, further[1]], axis=1)
        return self.to_out(attention(self._queries(x), keys, values, mask).reshape(x.shape))

    def see_windows(
        self,
        x: Float[Array, "b n d"],
        context: KeysAndValues,
        heard: Bool[Array, "b n window"],
        bias: Float[Array, "heads window"],
    ) -> Float[Array, "b n d"]:
        """What x sees of its windows of a context, of which `keys_and_values` made these."""
        seen = windowed_attention(self._queries(x), *context, heard, bias)
        return self.to_out(seen.reshape(x.shape))

    def see_one(self, value: Float[Array, "b q heads e"]) -> Float[Array, "b q d"]:
        """What is seen by whom sees this value and no other."""
        return self.to_out(value.reshape(*value.shape[:2], -1))

    def _queries(self, x: Float[Array, "b q d"]) -> Float[Array, "b q heads e"]:
        return self.to_q(x).reshape(*x.shape[:2], self.heads, -1)

    def keys_and_values(self, context: Float[Array, "b k c"]) -> KeysAndValues:
        """What a context is seen by; made once, it serves again and again."""
        shape = (*context.shape[:2], self.heads, -1)
        return self.to_k(context).reshape(shape), self.to_v(context).reshape(shape)
