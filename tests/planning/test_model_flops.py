"""Floating-point operations against closed forms and against what JAX's own gradient computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_examples, small_objective

from xactor_jax.planning.model_flops import executed_flops, model_flops

M, K, N = 5, 7, 11
X = np.zeros((M, K), np.float32)


def layers(params, x):
    return jnp.sum(jnp.tanh(x @ params["a"]) @ params["b"])


WEIGHTS = {"a": np.zeros((K, N), np.float32), "b": np.zeros((N, 3), np.float32)}


def test_a_product_costs_twice_as_much_again_for_each_gradient():
    first, second = 2 * M * K * N, 2 * M * N * 3
    # The data needs no gradient, the hidden features do.
    assert model_flops(layers, WEIGHTS, X) == 2 * first + 3 * second


def test_what_does_not_learn_has_no_gradient():
    def loss(params, frozen, x):
        return layers({"a": frozen, "b": params}, x)

    first, second = 2 * M * K * N, 2 * M * N * 3
    assert model_flops(loss, WEIGHTS["b"], WEIGHTS["a"], X) == first + 2 * second

    def stopped(params, x):
        return layers({**params, "a": jax.lax.stop_gradient(params["a"])}, x)

    assert model_flops(stopped, WEIGHTS, X) == first + 2 * second


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution(stride):
    def loss(kernel, pictures):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jnp.sum(
            jax.lax.conv_general_dilated(
                pictures, kernel, (stride, stride), "SAME", dimension_numbers=numbers
            )
        )

    kernel, pictures = np.zeros((3, 3, 4, 6), np.float32), np.zeros((2, 8, 8, 4), np.float32)
    forward = 2 * (2 * (8 // stride) ** 2 * 6) * (3 * 3 * 4)
    assert model_flops(loss, kernel, pictures) == 2 * forward


@pytest.mark.parametrize("rematerialise", [False, True])
def test_a_loop_counts_as_often_as_it_runs(rematerialise):
    def loss(weights, x):
        def body(x, w):
            return jnp.tanh(x @ w), None

        body = jax.checkpoint(body) if rematerialise else body
        return jnp.sum(jax.lax.scan(body, x, weights)[0])

    forward = 4 * 2 * M * K * K
    weights = np.zeros((4, K, K), np.float32)
    assert model_flops(loss, weights, X) == 3 * forward
    executed = executed_flops(jax.make_jaxpr(jax.grad(loss))(weights, X).jaxpr)
    assert executed == (4 if rematerialise else 3) * forward


@pytest.mark.parametrize("name", ["autoencoder", "motion"])
def test_tasks_cost_what_their_gradients_cost(name):
    objective, _ = small_objective(name)
    key = jax.random.key(0)
    params = jax.eval_shape(objective.init, key)
    given = (params, objective.frozen_shapes, random_examples(objective, 2), key)

    def loss(*given):
        return objective.loss(*given)[0]

    gradient = executed_flops(jax.make_jaxpr(jax.grad(loss))(*given).jaxpr)
    # JAX leaves out some products by constants and transposes a few small ones otherwise.
    assert model_flops(loss, *given) == pytest.approx(gradient, rel=0.02)
