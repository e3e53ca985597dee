"""Attention against its formula, and that a masked key is as good as absent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.random_weights import compiled, with_random_weights

from xactor_jax.nn.attention import MultiHeadAttention, attention

DRAW = np.random.default_rng(0)
QUERY, KEY, VALUE = (DRAW.normal(size=(2, n, 3, 4)).astype(np.float32) for n in (5, 7, 7))


def formula(query, key, value):
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, value)


def test_attention_is_the_softmax_of_scaled_products():
    np.testing.assert_allclose(
        attention(QUERY, KEY, VALUE), formula(QUERY, KEY, VALUE), atol=1e-5
    )  # fp32 sums of a few products


def test_a_masked_key_is_an_absent_key():
    seen = np.array([[1, 1, 0, 1, 0, 1, 1], [0, 1, 1, 1, 1, 0, 0]], bool)
    got = attention(QUERY, KEY, VALUE, jnp.asarray(seen[:, None, None]))
    for b in range(2):
        rest = formula(QUERY[b : b + 1], KEY[b : b + 1, seen[b]], VALUE[b : b + 1, seen[b]])
        np.testing.assert_allclose(got[b : b + 1], rest, atol=1e-5)


@pytest.mark.parametrize("key_width", [None, 5])
def test_heads_split_the_projected_features(key_width):
    module = with_random_weights(
        lambda rngs: MultiHeadAttention(6, 2, key_width=key_width, rngs=rngs)
    )
    x = DRAW.normal(size=(1, 4, 6)).astype(np.float32)
    context = None if key_width is None else DRAW.normal(size=(1, 3, 5)).astype(np.float32)
    got = compiled(lambda module, x, c: module(x, c), module)(x, context)
    keys = x if context is None else context
    kernel = {
        name: np.asarray(getattr(module, name).kernel[...]) for name in ("to_q", "to_k", "to_v")
    }
    query, key, value = x @ kernel["to_q"], keys @ kernel["to_k"], keys @ kernel["to_v"]
    heads = [
        formula(*(part[..., None, s] for part in (query, key, value)))[:, :, 0]
        for s in (slice(0, 3), slice(3, 6))
    ]
    out = np.concatenate(heads, axis=-1) @ np.asarray(module.to_out.kernel[...])
    np.testing.assert_allclose(got, out + np.asarray(module.to_out.bias[...]), atol=1e-4)


def test_softmax_of_half_precision_inputs_is_computed_in_full():
    # 512 equal keys: sums of their weights in bfloat16 would stall far below one.
    query, key = jnp.zeros((1, 1, 1, 4), jnp.bfloat16), jnp.zeros((1, 512, 1, 4), jnp.bfloat16)
    out = attention(query, key, jnp.ones_like(key))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(jax.device_get(out).astype(np.float32), 1.0, atol=2**-7)
