"""The tables of the released X-NeMo networks use every published key, and the command says what
is wrong with its files.

Shapes alone are compared here; tests/parity compares values.
"""

import sys

import numpy as np
import pytest
from flax import nnx
from parity.rule import is_fixed, key_list

from xactor_jax import convert
from xactor_jax.conversion.weights import apply_table
from xactor_jax.conversion.xnemo import (
    MOTION_ENCODER,
    UNET,
    denoiser_config,
    reference_config,
)
from xactor_jax.errors import InputError
from xactor_jax.models.motion_encoder import MotionEncoder, MotionEncoderConfig
from xactor_jax.models.video_unet import UNet
from xactor_jax.nn.layers import abstract
from xactor_jax.state import named_tensors


def shapes(name):
    """Arrays of the published shapes that take no memory."""
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in key_list(name).items()}


def tree(name):
    network, _, size = name.partition("-")
    make = {
        "motion_encoder": lambda rngs: MotionEncoder(MotionEncoderConfig(), rngs=rngs),
        "denoiser": lambda rngs: UNet(denoiser_config(size), rngs=rngs),
        "reference_network": lambda rngs: UNet(reference_config(size), rngs=rngs),
    }[network]
    return nnx.to_pure_dict(nnx.state(abstract(make)))


@pytest.fixture(scope="module")
def encoder():
    return tree("motion_encoder")


@pytest.mark.parametrize(
    ("name", "entries", "fixed"),
    [
        ("motion_encoder", 407, 57),  # counters of the batch norms, and the tokens' positions
        ("denoiser-small", 1820, 42),  # positions of the frames, twice in every temporal module
        ("reference_network-small", 682, 0),
        pytest.param("denoiser-full", 1820, 42, marks=pytest.mark.slow),
        pytest.param("reference_network-full", 682, 0, marks=pytest.mark.slow),
    ],
)
def test_every_published_entry_is_one_parameter(name, entries, fixed):
    published = shapes(f"xnemo_keys_{name.replace('-', '_')}")
    assert len(published) == entries
    assert sum(map(is_fixed, published)) == fixed
    parameters = tree(name)
    table = MOTION_ENCODER if name == "motion_encoder" else UNET
    filled = named_tensors(apply_table(table, published, parameters))
    assert len(filled) == entries - fixed == len(named_tensors(parameters))


@pytest.mark.parametrize(
    "key", ["model.m0.b2_plus_1.conv2.weight", "model.bn5.running_var", "bbox_proj.3.bias"]
)
def test_a_missing_key_is_named(encoder, key):
    published = shapes("xnemo_keys_motion_encoder")
    del published[key]
    with pytest.raises(InputError, match=f"they lack {key}$"):
        apply_table(MOTION_ENCODER, published, encoder)


@pytest.mark.parametrize(
    "key", ["out_proj.weight", "model.conv5.bn1.bias", "model.conv3.downsample.0.weight"]
)
def test_an_unknown_key_is_named(encoder, key):
    published = shapes("xnemo_keys_motion_encoder") | {key: np.zeros(3, np.float32)}
    with pytest.raises(InputError, match=f"have the unknown {key}$"):
        apply_table(MOTION_ENCODER, published, encoder)


def test_counters_and_positions_may_be_absent(encoder):
    published = shapes("xnemo_keys_motion_encoder")
    apply_table(MOTION_ENCODER, {k: v for k, v in published.items() if not is_fixed(k)}, encoder)


def test_an_unknown_size_is_named():
    for network in (convert.denoiser, convert.reference_network):
        with pytest.raises(InputError, match="no size 'large'; give one of small, full"):
            network({}, "large")


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["convert", *flags])
    convert.main()


def test_the_command_names_what_is_missing(monkeypatch, tmp_path):
    source, output = tmp_path / "source", tmp_path / "output"
    flags = (f"--source={source}", f"--output={output}")
    with pytest.raises(InputError, match=r"invalid choice: 'xnema'"):
        run(monkeypatch, "xnema", *flags)
    with pytest.raises(InputError, match=r"source: no such folder; give the one with xnemo_"):
        run(monkeypatch, "xnemo", *flags)
    source.mkdir()
    names = ("motion_encoder", "reference_unet", "denoising_unet", "temporal_module")
    for name in names:
        with pytest.raises(InputError, match=rf"source: lacks xnemo_{name}\.pth; give the folder"):
            run(monkeypatch, "xnemo", *flags)
        (source / f"xnemo_{name}.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"xnemo_motion_encoder\.pth: not a file of today's"):
        run(monkeypatch, "xnemo", *flags)
    assert not output.exists()
