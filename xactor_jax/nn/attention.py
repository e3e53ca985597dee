"""Attention: the only file that knows which kernel computes it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from xactor_jax.nn.layers import Linear, initial_kernel

KeysAndValues = tuple[Float[Array, "b k heads d"], Float[Array, "b k heads d"]]


def attention(
    query: Float[Array, "b q heads d"],
    key: Float[Array, "b k heads d"],
    value: Float[Array, "b k heads d"],
    mask: Bool[Array, "#b #1 #q k"] | None = None,
    bias: Float[Array, "b heads q k"] | None = None,
) -> Float[Array, "b q heads d"]:
    """Scaled dot-product attention; where the mask is False nothing is seen. Softmax in fp32.

    A bias is added to the scores.
    """
    return jax.nn.dot_product_attention(query, key, value, bias, mask)


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
        b, q, d = x.shape
        query = self.to_q(x).reshape(b, q, self.heads, -1)
        keys, values = self.keys_and_values(x if context is None else context)
        if further is not None:
            keys = jnp.concatenate([keys, further[0]], axis=1)
            values = jnp.concatenate([values, further[1]], axis=1)
        return self.to_out(attention(query, keys, values, mask, bias).reshape(b, q, d))

    def keys_and_values(self, context: Float[Array, "b k c"]) -> KeysAndValues:
        """What a context is seen by; made once, it serves as `further` again and again."""
        shape = (*context.shape[:2], self.heads, -1)
        return self.to_k(context).reshape(shape), self.to_v(context).reshape(shape)
