"""The released X-NeMo networks, in fp32: outputs of the official PyTorch code on rule-made weights.

The weights are converted from their published names, so architecture, names and converter are
proven at once (bytedance/x-nemo-inference).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx
from models.random_weights import compiled
from parity.rule import GOLDEN, key_list, rule_arrays, rule_input

from xactor_jax import convert
from xactor_jax.models.video_unet import UNet
from xactor_jax.nn.layers import abstract

SALT = "xactor-golden-1"


def difference(found, golden):
    """Largest difference, in standard deviations of the golden output."""
    return np.abs(np.asarray(found, np.float32) - golden).max() / golden.std()


@pytest.fixture(scope="module")
def encoder():
    return convert.motion_encoder(rule_arrays(SALT, key_list("xnemo_keys_motion_encoder")))


@pytest.fixture(scope="module")
def encoded(encoder):
    golden = np.load(GOLDEN / "xnemo_encoder.npz")
    image = np.tanh(rule_input(SALT, "image", (2, 3, 224, 224)))

    def run(encoder, image, box):
        latent = encoder.encode(image)
        return latent, encoder.fuse(latent, box), encoder(image, box)

    return compiled(run, encoder)(rearrange(image, "b c h w -> b h w c"), golden["bbox"]), golden


def test_the_motion_encoder_agrees_in_its_three_calls(encoded):
    (latent, fused, tokens), golden = encoded
    # Sums in another order: 2e-5 when this was written.
    assert difference(latent, golden["f"]) < 1e-4
    assert difference(tokens, golden["tokens"]) < 1e-4
    np.testing.assert_array_equal(fused, tokens)


def inputs(frames, side, width):
    """Inputs of the U-Nets: NCHW and channels-before-frames as published, channels last here."""
    latents = rule_input(SALT, "latents", (1, 4, frames, side, side))
    reference = rule_input(SALT, "reference", (1, 4, side, side))
    return {
        "latents": rearrange(latents, "b c t h w -> b t h w c"),
        "reference": rearrange(reference, "b c h w -> b 1 h w c"),
        "clip": rule_input(SALT, "clip", (1, 1, width)),
        "motion": rule_input(SALT, "motion", (1, frames, 32, 16)),
        "negative_motion": rule_input(SALT, "negative_motion", (1, 32, 16)),
    }


def see(network, given):
    run = compiled(
        lambda network, *arguments: network(*arguments[:2], image_token=arguments[2])[1], network
    )
    return run(given["reference"], jnp.zeros(1), given["clip"])


def predict(network, given, tokens):
    """The noise, by step: unconditional half, then conditional half, (2, c, t, h, w)."""
    frames = given["latents"].shape[1]
    negative = np.repeat(given["negative_motion"][:, None], frames, axis=1)
    conditions = {
        "image_token": np.concatenate([np.zeros_like(given["clip"]), given["clip"]]),
        "motion": np.concatenate([negative, given["motion"]]),
        # mutual_self_attention.py hands reference tokens over in fp16, whatever the weights are.
        "reference": [jnp.repeat(part.astype(jnp.float16), 2, axis=0) for part in tokens],
        "reference_seen": np.array([False, True]),
    }
    latents = np.repeat(given["latents"], 2, axis=0)
    run = compiled(lambda network, z, level, c: network(z, level, **c)[0], network)

    def at(step):
        output = run(latents, jnp.full(2, step / 1000), conditions)
        return rearrange(np.asarray(output, np.float32), "b t h w c -> b c t h w")

    return at


def weights(network, salt, size):
    return rule_arrays(f"{SALT}/{salt}", key_list(f"xnemo_keys_{network}_{size}"))


@pytest.fixture(scope="module")
def small():
    given = inputs(frames=3, side=16, width=64)
    reference = convert.reference_network(
        weights("reference_network", "reference_unet", "small"), "small"
    )
    return given, see(reference, given), np.load(GOLDEN / "xnemo_small.npz")


def test_the_small_denoiser_and_reference_network_agree(small):
    given, tokens, golden = small
    network = convert.denoiser(weights("denoiser", "denoising_unet", "small"), "small")
    at = predict(network, given, tokens)
    for step in (953, 29):
        noise = at(step)
        for half in (0, 1):
            # Sums in another order: 1e-5 when this was written.
            assert difference(noise[half], golden[f"eps/t{step}"][half]) < 5e-5


def in_bfloat16(network):
    """The same weights, computed with in half precision."""
    config = dataclasses.replace(network.config, dtype="bfloat16")
    graph = nnx.graphdef(abstract(lambda rngs: UNet(config, rngs=rngs)))
    return nnx.merge(graph, nnx.state(network))


def deviation(found, golden):
    """Root mean square of the difference, in standard deviations of the golden output.

    For bfloat16: with weights rounded to it and exact sums, single values of the small network are
    already off by 0.066, so a bound on the largest difference would measure the format.
    """
    return np.sqrt(np.mean((found - golden) ** 2)) / golden.std()


@pytest.mark.slow
def test_the_small_denoiser_agrees_in_bfloat16(small):
    given, tokens, golden = small
    network = convert.denoiser(weights("denoiser", "denoising_unet", "small"), "small")
    at = predict(in_bfloat16(network), given, tokens)
    for step in (953, 29):
        assert deviation(at(step), golden[f"eps/t{step}"]) < 3e-2


@pytest.mark.slow
def test_the_full_denoiser_and_reference_network_agree():
    """Needs 16 GB of memory; one network is in it at a time."""
    given = inputs(frames=2, side=32, width=768)
    tokens = see(
        convert.reference_network(weights("reference_network", "reference_unet", "full"), "full"),
        given,
    )
    network = convert.denoiser(weights("denoiser", "denoising_unet", "full"), "full")
    noise = predict(network, given, tokens)(953)
    golden = np.load(GOLDEN / "xnemo_full.npz")["eps/t953"]
    for half in (0, 1):
        assert difference(noise[half], golden[half]) < 1e-3
    noise = predict(in_bfloat16(network), given, tokens)(953)
    assert deviation(noise, golden) < 3e-2  # 0.017 when this was written
