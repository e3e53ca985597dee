"""Full sizes have the published networks' parameter counts (weights of x-nemo-inference)."""

import pytest
from flax import nnx

from xactor_jax.models.motion_encoder import MotionEncoder, MotionEncoderConfig
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.models.video_unet import UNet, UNetConfig
from xactor_jax.nn.blocks import AttentionModule
from xactor_jax.nn.layers import abstract
from xactor_jax.state import named_tensors


def parameters(make):
    """Names and sizes of the parameters of the network that `make(rngs)` would build."""
    state = nnx.state(abstract(make), nnx.Param)
    return {name: leaf.size for name, leaf in named_tensors(nnx.to_pure_dict(state)).items()}


def total(sizes, part=""):
    return sum(size for name, size in sizes.items() if part in f"/{name}/")


def test_the_motion_encoder():
    sizes = parameters(lambda rngs: MotionEncoder(MotionEncoderConfig(), rngs=rngs))
    assert total(sizes) == 61_665_393


@pytest.mark.parametrize(("shared", "millions"), [(False, 199), (True, 155)])
def test_the_motion_transformer_is_as_large_as_its_config_says(shared, millions):
    config = MotionTransformerConfig(shared_modulation=shared)
    sizes = parameters(lambda rngs: MotionTransformer(config, rngs=rngs))
    assert round(total(sizes) / 1e6) == millions


@pytest.mark.parametrize(
    ("width", "motion", "temporal"),
    [(320, 1_870_400, 2_259_520), (640, 7_427_200, 9_024_640), (1280, 29_600_000, 36_071_680)],
)
def test_an_inserted_module_of_each_width(width, motion, temporal):
    for kind, count in (({"key_width": 16}, motion), ({}, temporal)):
        sizes = parameters(
            lambda rngs, kind=kind: AttentionModule(width, 8, 32, 4, rngs=rngs, **kind)
        )
        assert total(sizes) == count


@pytest.mark.slow
def test_the_denoiser_and_its_inserted_modules():
    sizes = parameters(lambda rngs: UNet(UNetConfig(temporal=True), rngs=rngs))
    assert total(sizes, "/motion/") == 372_088_000
    assert total(sizes, "/temporal/") == 453_209_280
    assert total(sizes) == 1_684_818_244


def test_the_reference_network():
    config = UNetConfig(out_channels=None, motion_token=0)
    assert total(parameters(lambda rngs: UNet(config, rngs=rngs))) == 859_508_800
