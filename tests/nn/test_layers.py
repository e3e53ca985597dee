"""Weights as a CPU is fastest with compute what a network's own do."""

import jax
import numpy as np

from xactor_jax.nn.layers import input_first, output_first

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
