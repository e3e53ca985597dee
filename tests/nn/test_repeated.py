"""Blocks in a scan, or computed twice, are the same blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models.random_weights import with_random_weights

from xactor_jax.nn.layers import Linear
from xactor_jax.nn.repeated import repeated

X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
ADDED = np.random.default_rng(1).normal(size=(3, 5, 6)).astype(np.float32)


def blocks():
    return with_random_weights(lambda rngs: nnx.List([Linear(6, 6, rngs=rngs) for _ in range(3)]))


def step(block, x, added):
    h = jnp.tanh(block(x)) + (0 if added is None else added)
    return h, 2 * h


def by_formula(weights, inputs):
    x, results = X, []
    for n in range(3):
        x = np.tanh(x @ weights[n]["kernel"] + weights[n]["bias"])
        x = x + (0 if inputs is None else inputs[n])
        results.append(2 * x)
    return x, results


@pytest.mark.parametrize("inputs", [None, ADDED])
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("rematerialise", [False, True])
def test_every_way_is_one_block_after_another(scan, rematerialise, inputs):
    graph, state = nnx.split(blocks())

    def outcome(state):
        way = {"scan": scan, "rematerialise": rematerialise}
        return repeated(step, nnx.merge(graph, state), X, inputs, **way)

    last, results = jax.jit(outcome)(state)
    expected, each = by_formula(nnx.to_pure_dict(state), inputs)
    np.testing.assert_allclose(last, expected, atol=1e-5)  # fp32 sums of six products
    np.testing.assert_allclose(np.stack(results), np.stack(each), atol=1e-5)

    def loss(state, way=outcome):
        return jnp.sum(way(state)[0] ** 2)

    plain = jax.grad(
        lambda state: jnp.sum(repeated(step, nnx.merge(graph, state), X, inputs)[0] ** 2)
    )
    found = jax.jit(jax.grad(loss))(state)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, plain(state)
    )


def test_a_scan_holds_one_block_and_a_rematerialised_pass_keeps_only_carries():
    graph, state = nnx.split(blocks())

    def program(**way):
        def loss(state):
            return jnp.sum(repeated(step, nnx.merge(graph, state), X, **way)[0] ** 2)

        return str(jax.make_jaxpr(jax.grad(loss))(state))

    assert program().count(" tanh ") == 3
    assert program(scan=True).count(" tanh ") == 1
    assert program(rematerialise=True).count(" tanh ") == 6  # forward, and again backward
