"""Full sizes have the published networks' parameter counts (weights of x-nemo-inference)."""

from flax import nnx

from xactor_jax.models.motion_encoder import MotionEncoder, MotionEncoderConfig
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.models.video_unet import UNet, UNetConfig
from xactor_jax.state import named_tensors


def parameters(make):
    """Names and sizes of the parameters of the network that `make(rngs)` would build."""
    state = nnx.state(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param)
    return {name: leaf.size for name, leaf in named_tensors(nnx.to_pure_dict(state)).items()}


def total(sizes, part=""):
    return sum(size for name, size in sizes.items() if part in f"/{name}/")


def test_the_motion_encoder():
    sizes = parameters(lambda rngs: MotionEncoder(MotionEncoderConfig(), rngs=rngs))
    assert total(sizes) == 61_665_393


def test_the_motion_transformer_is_as_large_as_its_config_says():
    sizes = parameters(lambda rngs: MotionTransformer(MotionTransformerConfig(), rngs=rngs))
    assert abs(total(sizes) / 145e6 - 1) < 0.2


def test_the_denoiser_and_its_inserted_modules():
    sizes = parameters(lambda rngs: UNet(UNetConfig(temporal=True), rngs=rngs))
    assert total(sizes, "/motion/") == 372_088_000
    assert total(sizes, "/temporal/") == 453_209_280
    assert total(sizes) == 1_684_818_244


def test_the_reference_network():
    config = UNetConfig(out_channels=None, motion_token=0)
    assert total(parameters(lambda rngs: UNet(config, rngs=rngs))) == 859_508_800
