"""Attention against its formula, and that a masked key is as good as absent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.random_weights import compiled, quick_jit, with_random_weights

from xactor_jax.nn.attention import MultiHeadAttention, attention, windowed_attention

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

    def loss(query, key, value):
        return jnp.sum(attention(query, key, value, mask) ** 2)

    whole = jax.value_and_grad(loss, argnums=(0, 1, 2))
    with jax.enable_x64(True):
        expected = whole(query, key, value)
        monkeypatch.setattr("xactor_jax.nn.attention.SCORES", 2 * 3 * 70 * 7)
        found = whole(query, key, value)
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


def windowed(frames, reach, copies=2):
    """Random arguments in float64; a third of the tokens hears nothing, the others some places."""
    draw, window = np.random.default_rng(2), 2 * reach + 1
    tokens = copies * frames
    query = draw.normal(size=(2, tokens, 3, 4))
    keys, values = draw.normal(size=(2, 2, frames + window, 3, 4))
    heard = (draw.random((2, tokens, window)) < 0.6) & (draw.random((2, tokens, 1)) < 0.7)
    return query, keys, values, heard, draw.normal(size=(3, window))


def dense(library, query, keys, values, heard, bias):
    """The same with a score for every token and sound, most of which are then hidden."""
    (b, tokens, _, d), window = query.shape, heard.shape[2]
    sounds = keys.shape[1] - 1
    place = np.arange(sounds) - (np.arange(tokens) % (sounds + 1 - window))[:, None]
    near, place = (place >= 0) & (place < window), np.clip(place, 0, window - 1)
    audible = near & np.take_along_axis(heard, np.tile(place, (b, 1, 1)), axis=2)
    silence = ~heard.any(axis=-1, keepdims=True)
    scores = library.einsum("bqhd,bkhd->bhqk", query, keys) / np.sqrt(d)
    scores = scores + library.pad(bias[:, place], [(0, 0), (0, 0), (1, 0)])
    weights = np.concatenate([silence, audible], axis=2)[:, None] * library.exp(scores)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return library.einsum("bhqk,bkhd->bqhd", weights, values)


@pytest.mark.parametrize(
    ("frames", "reach", "block"),
    [(12, 2, 4), (12, 2, 25), (13, 2, 5), (12, 4, 3), (7, 5, 2), (5, 1, 1), (1, 3, 25), (6, 0, 3)],
)
@pytest.mark.parametrize("copies", [1, 2])
def test_attention_in_windows_is_attention_that_sees_nothing_else(frames, reach, block, copies):
    given = windowed(frames, reach, copies)
    with jax.enable_x64(True):
        found = windowed_attention(*given, block=block)
    np.testing.assert_allclose(found, dense(np, *given), rtol=1e-10, atol=1e-12)


def test_attention_in_windows_has_the_gradient_of_attention_that_sees_nothing_else():
    query, keys, values, heard, bias = windowed(13, 2)

    def gradient(attend):
        def loss(query, keys, values, bias):
            return jnp.sum(jnp.sin(attend(query, keys, values, heard, bias)))

        return quick_jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(query, keys, values, bias)

    with jax.enable_x64(True):
        found = gradient(functools.partial(windowed_attention, block=5))
        expected = gradient(functools.partial(dense, jnp))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_queries_of_other_frames_than_the_sound_are_refused():
    query, keys, values, heard, bias = windowed(6, 2)
    with pytest.raises(ValueError, match="12 queries for a sound of 5 frames and a window of 5"):
        windowed_attention(query, keys[:, 1:], values[:, 1:], heard, bias)


def test_attention_in_windows_holds_no_score_for_every_pair():
    def loss(query):
        keys = jnp.zeros((1, query.shape[1] + 9, 2, 8))
        heard, bias = jnp.ones((1, query.shape[1], 9), bool), jnp.zeros((2, 9))
        return jnp.sum(windowed_attention(query, keys, keys, heard, bias) ** 2)

    tokens = 4096
    assert memory_of(jax.grad(loss), np.zeros((1, tokens, 2, 8), np.float32)) < 4 * tokens**2 / 4
