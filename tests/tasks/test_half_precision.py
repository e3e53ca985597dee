"""Networks compute in half precision where told to; weights, gradients and losses stay in full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import quick_compilation as quick_compilation
from small_models import random_examples, random_weights, small_objective

RENDERER = {"renderer.denoiser.dtype": "bfloat16", "renderer.encoder.dtype": "bfloat16"}
HALF = {
    "autoencoder": RENDERER,
    "autoencoder_dit": {**RENDERER, "renderer.denoiser.scan": True},
    "motion": {"motion.dtype": "bfloat16", "motion.scan": True},
    "video": {"denoiser.dtype": "bfloat16"},
}


@pytest.mark.parametrize("name", HALF)
def test_weights_and_gradients_are_of_full_precision(name):
    objective, _ = small_objective(name, **HALF[name])
    params = jax.eval_shape(objective.init, jax.random.key(0))
    given = params, objective.frozen_shapes, random_examples(objective, 2), jax.random.key(0)
    traced, made = jax.make_jaxpr(jax.grad(objective.loss, has_aux=True), return_shape=True)(*given)
    assert "bf16" in str(traced)
    for leaf in jax.tree.leaves((params, made)):
        assert leaf.dtype == jnp.float32


def test_the_loss_is_nearly_that_of_full_precision():
    losses = []
    for dtype in ("float32", "bfloat16"):
        objective, _ = small_objective("motion", **{"motion.dtype": dtype})
        frozen = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), objective.frozen_shapes)
        given = random_weights(objective, 1), frozen, random_examples(objective, 4)
        losses.append(float(jax.jit(objective.loss)(*given, jax.random.key(0))[0]))
    # Eight bits of each feature: errors of one in 2^8, averaged.
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
