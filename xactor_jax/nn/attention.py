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


def attention(
    query: Float[Array, "b q heads d"],
    key: Float[Array, "b k heads d"],
    value: Float[Array, "b k heads d"],
    mask: kernels.Mask = None,
    bias: Float[Array, "b heads q k"] | None = None,
    earlier: KeysAndValues | None = None,
) -> Float[Array, "b q heads d"]:
    """Scaled dot-product attention; where the mask is False nothing is seen. Softmax in fp32.

    A bias is added to the scores. Long sequences go to the kernels of nn/kernels.py where one suits
    device and arguments. Elsewhere queries are taken in blocks, one after another, so that no more
    than `SCORES` scores exist at a time (or those of a single query): memory grows with the number
    of tokens and not with its square (Rabe and Staats, arXiv 2112.05682), in training too.

    Args:
      earlier: keys and values that come before `key` and `value` in mask and bias; (b, heads, e, d)
        each, as they are computed with, so that those of many calls are not copied.
    """
    where = platform()
    if where == "tpu" and kernels.suits_splash(query, key, mask, bias, earlier):
        return kernels.splash(query, key, value, mask)
    if where in ("gpu", "cuda") and kernels.suits_cudnn(query, key, mask, bias, earlier):
        return kernels.cudnn(query, key, value, mask, bias)
    q = query.shape[1]
    query, key, value = (rearrange(x, "b n heads d -> b heads n d") for x in (query, key, value))
    count = key.shape[2] + (0 if earlier is None else earlier[0].shape[2])
    of_one_query = math.prod(query.shape[:2]) * count
    blocks = -(-q // max(1, SCORES * mesh_size() // of_one_query))
    if blocks == 1:
        seen = _seen(query, key, value, mask, bias, earlier)
        return rearrange(seen, "b heads n d -> b n heads d")
    rows = -(-q // blocks)
    pad = functools.partial(_padded, rows=rows * blocks)
    query, mask, bias = pad(query), pad(mask), pad(bias)

    @jax.checkpoint
    def block(number: Int[Array, ""]) -> Float[Array, "b heads rows d"]:
        part = functools.partial(_rows, start=number * rows, count=rows)
        return _seen(part(query), key, value, part(mask), part(bias), earlier)

    parts = jax.lax.map(block, jnp.arange(blocks))
    return rearrange(parts, "blocks b heads rows d -> b (blocks rows) heads d")[:, :q]


def _seen(query, key, value, mask, bias, earlier) -> Float[Array, "b heads q d"]:
    """Attention, its arguments with heads before tokens."""
    precise = jnp.promote_types(query.dtype, jnp.float32)
    scores_of = functools.partial(jnp.einsum, "bhqd,bhkd->bhqk", preferred_element_type=precise)
    scores = scores_of(query, key)
    if earlier is not None:
        scores = jnp.concatenate([scores_of(query, earlier[0]), scores], axis=-1)
    scores = scores * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias.astype(precise)
    if mask is not None:  # finite, so that a query that sees nothing is no NaN
        scores = jnp.where(mask, scores, 0.7 * jnp.finfo(precise).min)
    weights, see = jax.nn.softmax(scores).astype(value.dtype), "bhqk,bhkd->bhqd"
    if earlier is None:
        return jnp.einsum(see, weights, value)
    before, weights = jnp.split(weights, [earlier[1].shape[2]], axis=-1)
    return jnp.einsum(see, before, earlier[1]) + jnp.einsum(see, weights, value)


def _padded(x: Any, rows: int) -> Any:
    """With so many query rows; as it is where all queries share one."""
    if x is None or x.shape[2] == 1:
        return x
    return jnp.pad(x, [(0, 0), (0, 0), (0, rows - x.shape[2]), (0, 0)])


def _rows(x: Any, start: Int[Array, ""], count: int) -> Any:
    """Some of the query rows, likewise."""
    if x is None or x.shape[2] == 1:
        return x
    return jax.lax.dynamic_slice_in_dim(x, start, count, axis=2)


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
        bias: Float[Array, "b heads q k"] | None = None,
        further: KeysAndValues | None = None,
    ) -> Float[Array, "b q d"]:
        """What x sees of the context (x itself by default) and, after it, of `further`."""
        keys, values = self.keys_and_values(x if context is None else context)
        if further is not None:
            keys = jnp.concatenate([keys, further[0]], axis=1)
            values = jnp.concatenate([values, further[1]], axis=1)
        return self.see(x, keys, values, mask, bias)

    def see(
        self,
        x: Float[Array, "b q d"],
        keys: Float[Array, "b k heads d"],
        values: Float[Array, "b k heads d"],
        mask: Bool[Array, "#b #1 #q k"] | None = None,
        bias: Float[Array, "b heads q k"] | None = None,
    ) -> Float[Array, "b q d"]:
        """What x sees of keys and values that `keys_and_values` made."""
        b, q, d = x.shape
        query = self.to_q(x).reshape(b, q, self.heads, -1)
        return self.to_out(attention(query, keys, values, mask, bias).reshape(b, q, d))

    def keys_and_values(self, context: Float[Array, "b k c"]) -> KeysAndValues:
        """What a context is seen by; made once, it serves as `further` again and again."""
        shape = (*context.shape[:2], self.heads, -1)
        return self.to_k(context).reshape(shape), self.to_v(context).reshape(shape)
