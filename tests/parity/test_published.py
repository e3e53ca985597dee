"""The codecs, CLIP and wav2vec2, in fp32, against diffusers and transformers.

Golden files hold what those networks say with rule-made weights; where torch is installed they are
also run here, on other weights and inputs.
"""

import numpy as np
import pytest
from flax import nnx
from parity.published import INPUTS, OURS, SALT, difference, inputs
from parity.rule import GOLDEN, key_list, rule_arrays

from xactor_jax.conversion import clip, vae, wav2vec2
from xactor_jax.conversion.weights import apply_table
from xactor_jax.errors import InputError
from xactor_jax.models.autoencoder_kl import AutoencoderKLConfig
from xactor_jax.models.clip import CLIPImageEncoderConfig
from xactor_jax.models.tiny_autoencoder import TinyAutoencoderConfig
from xactor_jax.models.wav2vec2 import Wav2Vec2Config
from xactor_jax.nn.layers import abstract
from xactor_jax.state import named_tensors

# Sums of hundreds of products in another order, through some ten layers.
LIMIT = 2e-4

# How the full size is recognised, its config, and its parameters as diffusers and transformers
# count them.
FULL = {
    "sd_vae": (vae.sd, AutoencoderKLConfig(), 83_653_863),
    "svd_vae": (vae.svd, AutoencoderKLConfig(temporal=True), 97_742_847),
    "taesd": (vae.taesd, TinyAutoencoderConfig(), 2_445_063),
    "clip": (clip.recognise, CLIPImageEncoderConfig(), 303_966_208),
    # Less the token that hides audio, and the lengths that weight norm keeps apart.
    "wav2vec2": (wav2vec2.recognise, Wav2Vec2Config(), 94_371_712 - 768 - 128),
}


@pytest.mark.parametrize("name", INPUTS)
def test_the_small_network_agrees(name):
    arrays = rule_arrays(f"{SALT}/{name}", key_list(f"{name}_keys_small"))
    found = OURS[name](arrays, inputs(name))
    with np.load(GOLDEN / f"{name}.npz") as golden:
        assert found.keys() == set(golden)
        for key in golden:
            assert difference(found[key], golden[key]) < LIMIT


@pytest.mark.parametrize("name", FULL)
def test_every_published_key_of_the_full_network_is_used_once(name):
    recognise, config, parameters = FULL[name]
    arrays = {
        key: np.broadcast_to(np.float32(1), shape)
        for key, shape in key_list(f"{name}_keys_full").items()
    }
    network = recognise(arrays)
    assert network.config == config
    tree = nnx.to_pure_dict(nnx.state(abstract(network.make)))
    filled = named_tensors(apply_table(network.table, network.arrays, tree))
    assert sum(array.size for array in filled.values()) == parameters

    last = next(reversed(arrays))
    incomplete = {key: array for key, array in network.arrays.items() if key != last}
    with pytest.raises(InputError, match=last):
        apply_table(network.table, incomplete, tree)
    with pytest.raises(InputError, match="discriminator"):
        apply_table(network.table, {**network.arrays, "discriminator": np.ones(1)}, tree)


OTHER_SHAPES = {
    "sd_vae": {"images": (1, 3, 24, 40), "latents": (1, 4, 5, 7)},
    "svd_vae": {"images": (2, 3, 24, 16), "latents": (3, 4, 5, 3)},
    "taesd": {"images": (2, 3, 16, 40), "latents": (1, 4, 5, 3)},
    "clip": {"images": (3, 3, 56, 56)},
    "wav2vec2": {"audio": (1, 20_123)},
}


@pytest.mark.parametrize("name", INPUTS)
def test_the_small_network_agrees_with_the_installed_one(name):
    theirs = published_code()
    given = inputs(name, "live", OTHER_SHAPES[name])
    arrays = rule_arrays(f"live/{name}", key_list(f"{name}_keys_small"))
    found = OURS[name](arrays, given)
    for key, golden in theirs.outputs(name, "small", "live", given).items():
        assert difference(found[key], golden) < LIMIT


FULL_SHAPES = {
    "sd_vae": {"images": (1, 3, 64, 64), "latents": (1, 4, 8, 8)},
    "svd_vae": {"images": (1, 3, 64, 64), "latents": (3, 4, 8, 8)},
    "taesd": {"images": (1, 3, 64, 64), "latents": (1, 4, 8, 8)},
    "clip": {"images": (1, 3, 224, 224)},
    "wav2vec2": {"audio": (1, 16_000)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_the_full_network_agrees_with_the_installed_one(name):
    theirs = published_code()
    given = inputs(name, "live", FULL_SHAPES[name])
    arrays = rule_arrays(f"live/{name}", key_list(f"{name}_keys_full"))
    found = OURS[name](arrays, given)
    for key, golden in theirs.outputs(name, "full", "live", given).items():
        # Deeper and wider than the small ones.
        assert difference(found[key], golden) < 1e-3


def published_code():
    for package in ("torch", "diffusers", "transformers"):
        pytest.importorskip(package)
    from parity import make_golden

    return make_golden
