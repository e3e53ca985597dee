"""Norms and initial weights against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from xactor_jax.nn.layers import initial_kernel
from xactor_jax.nn.norms import ConvolutionNorm, group_norm, layer_norm

X = np.random.default_rng(0).normal(3, 2, size=(2, 3, 3, 12)).astype(np.float32)


@pytest.mark.parametrize(("groups", "used"), [(4, 4), (8, 6), (32, 12), (5, 4)])
def test_groups_are_as_many_as_divide_the_channels(groups, used):
    norm = group_norm(12, groups, 1e-5, nnx.Rngs(0))
    parts = X.reshape(2, 9, used, 12 // used).astype(np.float64)
    mean, variance = parts.mean(axis=(1, 3), keepdims=True), parts.var(axis=(1, 3), keepdims=True)
    expected = ((parts - mean) / np.sqrt(variance + 1e-5)).reshape(X.shape)
    np.testing.assert_allclose(norm(X), expected, atol=1e-4)


def test_layer_norm_with_and_without_weights():
    mean, variance = X.mean(axis=-1, keepdims=True), X.var(axis=-1, keepdims=True)
    expected = (X - mean) / np.sqrt(variance + 1e-5)
    for affine in (True, False):
        norm = layer_norm(12, nnx.Rngs(0), affine=affine)
        np.testing.assert_allclose(norm(X), expected, atol=1e-4)
        assert len(jax.tree.leaves(nnx.state(norm))) == 2 * affine


def test_the_batch_norm_uses_what_it_stored():
    norm = ConvolutionNorm(12, "batch", rngs=nnx.Rngs(0))
    draw = np.random.default_rng(1)
    stored = {name: draw.random(12).astype(np.float32) for name in ("scale", "bias", "mean", "var")}
    for name, value in stored.items():
        getattr(norm, name)[...] = jnp.asarray(value)
    normal = (X - stored["mean"]) / np.sqrt(stored["var"] + 1e-5)
    np.testing.assert_allclose(norm(X), normal * stored["scale"] + stored["bias"], atol=1e-3)
    # One picture of the batch does not change what becomes of another.
    np.testing.assert_array_equal(norm(X)[:1], norm(X[:1]))


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match="'layer'"):
        ConvolutionNorm(4, "layer", rngs=nnx.Rngs(0))


def test_initial_weights_are_uniform_and_keep_the_scale_of_their_inputs():
    kernel = np.asarray(initial_kernel(jax.random.key(0), (3, 3, 16, 64), jnp.float32))
    deviation = 1 / np.sqrt(3 * 3 * 16)  # of 144 inputs of variance 1, the sum has variance 1
    assert np.abs(kernel).max() <= np.sqrt(3) * deviation * (1 + 1e-6)
    # 9216 draws: the deviation of a uniform variable is known to about 0.5 %.
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.03)
