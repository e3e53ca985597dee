"""Scanned or rematerialised, every network computes what it computes otherwise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models.random_weights import with_random_weights

from xactor_jax.models.motion_cache import KeyValueCache
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.models.video_dit import DiT, DiTConfig
from xactor_jax.models.video_unet import UNet, UNetConfig

DRAW = np.random.default_rng(0)


def draw(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


MOTION = MotionTransformerConfig(latent=2, audio=3, width=8, depth=3, heads=2, feed_forward=1)
PAST = KeyValueCache(draw(3, 1, 5, 2, 4), draw(3, 1, 5, 2, 4), np.ones(5, bool))
TOKENS = (
    draw(1, 4, 2),
    np.full((1, 4), 0.5, np.float32),
    5 + np.arange(4)[None],
    np.ones((1, 4, 9), bool),
    draw(1, 8, 3),
    np.ones((1, 4, 5), bool),
    draw(1, 2),
    np.ones(1, bool),
    None,
    PAST,
)
IMAGES = draw(1, 2, 4, 4, 4)
CONDITIONS = {"motion": draw(1, 2, 3, 16)}


def act(network):
    return network(*TOKENS), network.keys_and_values(*TOKENS).keys


def denoise(references):
    def run(network):
        seen = np.ones(1, bool)
        return network(
            IMAGES,
            np.full(1, 0.3, np.float32),
            reference=references,
            reference_seen=seen,
            **CONDITIONS,
        )

    return run


UNET = UNetConfig(
    channels=(8,),
    layers=1,
    attention_levels=(True,),
    heads=2,
    groups=2,
    feed_forward=1,
    image_token=0,
    motion_feed_forward=1,
)
NETWORKS = {
    "motion": (MotionTransformer, MOTION, act, ("scan", "rematerialise")),
    "motion, modulation shared": (
        MotionTransformer,
        dataclasses.replace(MOTION, shared_modulation=True),
        act,
        ("scan", "rematerialise"),
    ),
    "dit": (
        DiT,
        DiTConfig(width=8, depth=3, heads=2, feed_forward=1),
        denoise([draw(1, 4, 8) for _ in range(3)]),
        ("scan", "rematerialise"),
    ),
    "unet": (UNet, UNET, denoise([draw(1, 16, 8) for _ in range(4)]), ("rematerialise",)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_stay_the_same(name):
    network, config, run, ways = NETWORKS[name]
    params = nnx.state(with_random_weights(lambda rngs: network(config, rngs=rngs)))

    def outcome(config):
        graph, _ = nnx.split(nnx.eval_shape(lambda: network(config, rngs=nnx.Rngs(0))))

        def loss(params):
            found = run(nnx.merge(graph, params))
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(found)), found

        (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return jax.tree.map(np.asarray, (found, gradient))

    changed = dataclasses.replace(config, **dict.fromkeys(ways, True))
    # fp32, compiled otherwise.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        outcome(changed),
        outcome(config),
    )
