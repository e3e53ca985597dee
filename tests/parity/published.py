"""The published codecs and encoders as this package runs them, under the layouts of torch."""

import numpy as np
from einops import rearrange
from models.random_weights import compiled
from parity.rule import rule_input

from xactor_jax.conversion.clip import clip
from xactor_jax.conversion.vae import vae
from xactor_jax.conversion.wav2vec2 import wav2vec2

SALT = "xactor-golden-1"
FRAMES = 3  # of a video of the temporal decoder

# Shapes of the inputs of the golden files.
INPUTS = {
    "sd_vae": {"images": (2, 3, 32, 24), "latents": (2, 4, 6, 8)},
    "svd_vae": {"images": (1, 3, 16, 16), "latents": (2 * FRAMES, 4, 3, 4)},
    "taesd": {"images": (1, 3, 32, 24), "latents": (2, 4, 3, 4)},
    "clip": {"images": (2, 3, 56, 56)},
    "wav2vec2": {"audio": (2, 8000)},
}


def inputs(name, salt=SALT, shapes=None):
    """Inputs by the rule; pictures lie in [-1, 1]."""
    drawn = {
        key: rule_input(salt, f"{name}/{key}", shape)
        for key, shape in (shapes or INPUTS[name]).items()
    }
    return {key: np.tanh(value) if key == "images" else value for key, value in drawn.items()}


def codec(kind):
    def run(arrays, given):
        network = vae(arrays, kind)
        images, latents = (channels_last(given[key]) for key in ("images", "latents"))
        extra = (FRAMES,) if kind == "svd" else ()
        return {
            "latents": channels_first(compiled(lambda n, x: n.encode(x), network)(images)),
            "images": channels_first(compiled(lambda n, z: n.decode(z, *extra), network)(latents)),
        }

    return run


def image_encoder(arrays, given):
    images = channels_last(given["images"])
    return {"embedding": np.asarray(compiled(lambda n, x: n(x), clip(arrays))(images))}


def speech_encoder(arrays, given):
    states = compiled(lambda n, x: n(x), wav2vec2(arrays))(given["audio"])
    return {"states": np.asarray(states)}


OURS = {
    "sd_vae": codec("sd"),
    "svd_vae": codec("svd"),
    "taesd": codec("taesd"),
    "clip": image_encoder,
    "wav2vec2": speech_encoder,
}


def channels_last(x):
    return rearrange(x, "b c h w -> b h w c")


def channels_first(x):
    return rearrange(np.asarray(x), "b h w c -> b c h w")


def difference(found, golden):
    """Largest difference, in standard deviations of the golden output."""
    assert found.shape == golden.shape
    return np.abs(found - golden).max() / golden.std()
