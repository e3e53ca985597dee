"""Codecs, CLIP and wav2vec2 as files: written once, and read under every name they have had."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from parity.published import SALT
from parity.rule import key_list, rule_arrays
from safetensors.numpy import save_file

from xactor_jax import convert
from xactor_jax.checkpoint import load_weights
from xactor_jax.config import build
from xactor_jax.errors import InputError
from xactor_jax.models.tiny_autoencoder import TinyAutoencoderConfig


def published(name):
    return dict(rule_arrays(f"{SALT}/{name}", key_list(f"{name}_keys_small")))


def parameters(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_file_becomes_a_weights_file_with_its_sizes(tmp_path):
    source, output = tmp_path / "taesd.safetensors", tmp_path / "checkpoint"
    arrays = published("taesd")
    save_file(arrays, source)
    written = convert.KINDS["taesd"](source, output)
    assert [path.name for path in written] == ["taesd.safetensors", "taesd.manifest.json"]
    weights, metadata = load_weights(written[0])
    assert metadata["kind"] == "taesd"
    assert build(TinyAutoencoderConfig, metadata["taesd"]) == TinyAutoencoderConfig(channels=16)
    assert_equal(weights["params"], parameters(convert.vae(arrays, "taesd")))
    assert list(json.loads(written[1].read_text())["sources"]) == ["taesd.safetensors"]


@pytest.mark.parametrize("kind", ["sd_vae", "svd_vae", "taesd", "clip", "wav2vec2"])
def test_another_networks_file_is_refused_by_name(kind, tmp_path):
    source = tmp_path / "other.safetensors"
    save_file({"conv_in.weight": np.zeros((4, 3, 3, 3), np.float32)}, source)
    with pytest.raises(InputError, match=r"other\.safetensors: not the weights of"):
        convert.KINDS[kind](source, tmp_path)


def test_an_unknown_codec_is_refused():
    with pytest.raises(InputError, match="no codec 'sdxl'; give one of sd, svd, taesd"):
        convert.vae({}, "sdxl")


def test_names_of_attention_before_diffusers_0_18():
    arrays = published("sd_vae")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, array in arrays.items():
        part = next((part for part in names if f".attentions.0.{part}." in key), None)
        old[key.replace(part, names[part]) if part else key] = array
    assert old.keys() != arrays.keys()
    assert_equal(parameters(convert.vae(old, "sd")), parameters(convert.vae(arrays, "sd_vae")))


def test_names_of_weight_norm_before_torch_2_and_the_spelling_head():
    arrays = published("wav2vec2")
    old = {
        "wav2vec2."
        + key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): array
        for key, array in arrays.items()
    }
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in old
    old["lm_head.weight"] = np.zeros((32, 128), np.float32)
    assert_equal(parameters(convert.wav2vec2(old)), parameters(convert.wav2vec2(arrays)))


def test_the_positional_kernel_has_the_length_that_weight_norm_keeps():
    arrays = published("wav2vec2")
    length = arrays["encoder.pos_conv_embed.conv.parametrizations.weight.original0"]
    kernel = np.asarray(convert.wav2vec2(arrays).positions.kernel[...])
    # One length for each place of the kernel, over all its channels.
    np.testing.assert_allclose(
        np.linalg.norm(kernel.reshape(len(kernel), -1), axis=1), np.abs(length[0, 0]), rtol=1e-5
    )
