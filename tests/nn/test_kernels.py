"""Kernels of accelerators against the formula, interpreted, and compiled for slices without one."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xactor_jax.diffusion.noise_levels import chunk_causal_mask
from xactor_jax.nn import kernels
from xactor_jax.nn.attention import attention
from xactor_jax.planning.chips import topology
from xactor_jax.sharding import batch_sharding, make_mesh

DRAW = np.random.default_rng(0)
Q, K = 130, 140  # neither fills a block of 128


def draw(tokens):
    return DRAW.normal(size=(2, tokens, 2, 8)).astype(np.float32)


MASKS = {
    "none": None,
    "keys": DRAW.random((2, 1, 1, K)) < 0.7,
    "block causal": chunk_causal_mask(K, 10)[None, None, -Q:],
}


@pytest.mark.parametrize("name", MASKS)
def test_splash_attention_is_attention(name):
    query, key, value, mask = draw(Q), draw(K), draw(K), MASKS[name]

    def outcome(attend):
        def loss(*given):
            return jnp.sum(jnp.sin(attend(*given, mask)))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(query, key, value)

    found = outcome(lambda *given: kernels.splash(*given, interpret=True))
    # fp32 sums of a hundred terms in another order.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        found,
        outcome(attention),
    )


@pytest.mark.libtpu
@pytest.mark.parametrize("causal", [False, True])
def test_splash_attention_compiles_for_a_tpu(causal):
    mesh = make_mesh({"replica": 1, "fsdp": 4, "context": 1, "tensor": 2}, topology("v5e:2x4")[0])
    rows = batch_sharding(mesh)
    tokens = jax.ShapeDtypeStruct((4, 1024, 2, 40), jnp.bfloat16, sharding=rows)
    seen = jax.ShapeDtypeStruct((4, 1, 1, 1024), bool, sharding=rows)

    def loss(query, seen):
        mask = chunk_causal_mask(1024, 16)[None, None] if causal else seen
        return jnp.sum(attention(query, query, query, mask).astype(jnp.float32))

    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.grad(loss)).trace(tokens, seen).lower(lowering_platforms=("tpu",))
    compiled = lowered.compile()
    assert "splash" in compiled.as_text()
    scores = 4 * 1024**2  # of the row and the head of one device, in fp32
    assert compiled.memory_analysis().temp_size_in_bytes < scores


def test_cudnn_is_asked_for_what_it_can_do():
    def asked(dtype=jnp.bfloat16, tokens=512, d=40, mask=None, earlier=None):
        tokens = jnp.zeros((1, tokens, 2, d), dtype)
        return kernels.suits_cudnn(tokens, tokens, mask, earlier)

    assert asked()
    assert not asked(jnp.float32)
    assert not asked(tokens=24)  # of frames: nothing is gained
    assert not asked(tokens=513)
    assert asked(d=128) and not asked(d=160)
    assert not asked(d=128, mask=jnp.ones((1, 1, 1, 512), bool))  # no room for the mark
    assert not asked(earlier=(jnp.zeros((1, 2, 8, 40)),) * 2)


@pytest.mark.parametrize("capability", ["7.5", "gfx90a"])  # of a T4, and of another maker's GPU
def test_cudnn_is_not_asked_of_gpus_that_lack_its_kernel(monkeypatch, capability):
    monkeypatch.setattr(
        jax, "local_devices", lambda: [SimpleNamespace(compute_capability=capability)]
    )
    tokens = jnp.zeros((1, 512, 2, 40), jnp.bfloat16)
    assert not kernels.suits_cudnn(tokens, tokens, None, None)


@pytest.mark.parametrize("mask", [None, (2, 1, 1, 1024), (1, 1, 512, 1024)])
def test_what_cudnn_is_asked_for_is_lowered_for_it(monkeypatch, mask):
    checks = "jax._src.cudnn.fused_attention_stablehlo."  # they look for a GPU
    monkeypatch.setattr(checks + "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(checks + "check_compute_capability", lambda wanted: wanted <= "8.0")
    query, key = (jax.ShapeDtypeStruct((2, n, 8, 40), jnp.bfloat16) for n in (512, 1024))
    seen = None if mask is None else jax.ShapeDtypeStruct(mask, bool)
    assert kernels.suits_cudnn(query, key, seen, None)

    def loss(query, key, value, seen):
        return jnp.sum(kernels.cudnn(query, key, value, seen).astype(jnp.float32))

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(query, key, key, seen)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    without_scores = mask is None or mask[2] == 1  # nothing is given for each pair
    assert ("fmhaSoftmaxBackward" if without_scores else "fmhaScaleBiasSoftmaxBackward") in program


def test_keys_hidden_by_a_mark_are_not_seen():
    query, key, value, mask = draw(Q), draw(K), draw(K), MASKS["keys"]
    scale = query.shape[-1] ** -0.5
    found = jax.nn.dot_product_attention(*kernels.marked(query, key, value, mask), scale=scale)
    # fp32 sums of a hundred terms in another order.
    np.testing.assert_allclose(found[..., :8], attention(query, key, value, mask), atol=1e-5)
    np.testing.assert_array_equal(found[..., 8:], 0)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
def test_cudnn_attention_is_attention():
    query, key, value = (jnp.asarray(draw(n), jnp.bfloat16) for n in (Q, K, K))
    for mask in MASKS.values():
        found = kernels.cudnn(query, key, value, mask)
        monkey = attention(*(x.astype(jnp.float32) for x in (query, key, value)), mask)
        np.testing.assert_allclose(found.astype(jnp.float32), monkey, atol=0.05)
