"""Weights as a CPU is fastest with compute what a network's own do."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xactor_jax.nn.layers import Linear, in_compute_type, input_first, output_first

DRAW = np.random.default_rng(0)
WEIGHTS = {
    "hidden": {"kernel": DRAW.normal(size=(3, 5)), "bias": DRAW.normal(size=5)},
    "place": DRAW.normal(size=(3, 5)),
    "convolution": {"kernel": DRAW.normal(size=(3, 3, 2, 4))},
}


def test_only_the_kernels_of_linear_layers_are_kept_output_first_and_nothing_is_lost():
    kept = output_first(WEIGHTS)
    shapes = sorted(x.shape for x in jax.tree.leaves(kept))
    assert shapes == sorted([(5, 3), (5,), (3, 5), (3, 3, 2, 4)])
    for found in (input_first(kept), jax.jit(input_first)(kept), input_first(WEIGHTS)):
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a, np.float32(b)),
            jax.tree.map(np.float32, found),
            WEIGHTS,
        )


def test_kernels_are_rounded_beforehand_as_a_layer_rounds_them_itself():
    layer = Linear(4, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = DRAW.normal(size=(2, 4)).astype(np.float32)
    graph, state = nnx.split(layer)
    rounded = in_compute_type(nnx.to_pure_dict(state), jnp.bfloat16)
    assert rounded["kernel"].dtype == jnp.bfloat16 and rounded["bias"].dtype == jnp.float32
    np.testing.assert_array_equal(nnx.merge(graph, rounded)(x), layer(x))
