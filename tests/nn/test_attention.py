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


def memory_of(function, *arguments):
    """Bytes that the compiled function needs besides its arguments and results."""
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("queries", [60, 61])  # and a last block that is not full
@pytest.mark.parametrize("mask_rows", [0, 1, None])
def test_blocks_of_queries_see_what_all_see_at_once(queries, mask_rows, monkeypatch):
    draw = np.random.default_rng(1)
    query, key, value = (draw.normal(size=(2, n, 3, 4)) for n in (queries, 70, 70))
    rows = queries if mask_rows is None else mask_rows
    mask = draw.random((2, 1, rows, 70)) < 0.7 if rows else None
    bias = draw.normal(size=(2, 3, queries, 70))

    def loss(query, key, value, bias):
        return jnp.sum(attention(query, key, value, mask, bias) ** 2)

    whole = jax.value_and_grad(loss, argnums=(0, 1, 2, 3))
    with jax.enable_x64(True):
        expected = whole(query, key, value, bias)
        monkeypatch.setattr("xactor_jax.nn.attention.SCORES", 2 * 3 * 70 * 7)
        found = whole(query, key, value, bias)
    # The same sums in float64.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, expected
    )


def test_memory_does_not_grow_with_the_square_of_the_tokens(monkeypatch):
    monkeypatch.setattr("xactor_jax.nn.attention.SCORES", 2**16)

    def loss(x):
        return jnp.sum(attention(x, x, x) ** 2)

    gradient = jax.grad(loss)
    small, large = (np.zeros((1, n, 2, 8), np.float32) for n in (2048, 8192))
    scores = 4 * 2 * 8192**2
    assert memory_of(gradient, large) < scores / 50
    # Four times the tokens: four times the features, and the scores of a block as before.
    assert memory_of(gradient, large) < 4.5 * memory_of(gradient, small)
