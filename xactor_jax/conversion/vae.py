"""The codecs of Stable Diffusion and Stable Video Diffusion, and TAESD, in diffusers' layout."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from xactor_jax.conversion.published import Published
from xactor_jax.conversion.weights import (
    ARRAY,
    LAYER,
    NORM,
    POINTWISE,
    Arrays,
    Kind,
    Row,
    Table,
    as_it_is,
    nested,
)
from xactor_jax.errors import InputError
from xactor_jax.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from xactor_jax.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig


def _between_frames(array: np.ndarray) -> np.ndarray:
    """Kernel of a convolution over time, (out, in, 3, 1, 1) -> (3, 1, in, out)."""
    return array.transpose(2, 3, 1, 0, 4)[..., 0]


BETWEEN_FRAMES: Kind = {"weight": ("kernel", _between_frames), "bias": ("bias", as_it_is)}

RESNET = (
    Row("norm1", "norm1", NORM),
    Row("conv1", "conv1", LAYER),
    Row("norm2", "norm2", NORM),
    Row("conv2", "conv2", LAYER),
    Row("conv_shortcut", "shortcut", LAYER),
)
VIDEO_RESNET = (
    *nested("spatial_res_block", "spatial", RESNET),
    Row("temporal_res_block.norm1", "temporal/norm1", NORM),
    Row("temporal_res_block.conv1", "temporal/conv1", BETWEEN_FRAMES),
    Row("temporal_res_block.norm2", "temporal/norm2", NORM),
    Row("temporal_res_block.conv2", "temporal/conv2", BETWEEN_FRAMES),
    Row("time_mixer.mix_factor", "mix_factor", ARRAY),
)
ATTENTION = (
    Row("group_norm", "norm", NORM),
    Row("to_q", "attention/to_q", POINTWISE),
    Row("to_k", "attention/to_k", POINTWISE),
    Row("to_v", "attention/to_v", POINTWISE),
    Row("to_out.0", "attention/to_out", POINTWISE),
    # The names of files from before diffusers 0.18.
    Row("query", "attention/to_q", POINTWISE),
    Row("key", "attention/to_k", POINTWISE),
    Row("value", "attention/to_v", POINTWISE),
    Row("proj_attn", "attention/to_out", POINTWISE),
)
ENDS = (
    Row("conv_in", "conv_in", LAYER),
    Row("conv_norm_out", "norm_out", NORM),
    Row("conv_out", "conv_out", LAYER),
    *nested("mid_block.attentions.0", "middle", ATTENTION),
)
ENCODER = (
    *ENDS,
    *nested("mid_block.resnets.{i}", "middle/blocks/{i}", RESNET),
    *nested("down_blocks.{i}.resnets.{j}", "down/{i}/{j}", RESNET),
    Row("down_blocks.{i}.downsamplers.0.conv", "downsamplers/{i}", LAYER),
)
DECODER = (
    *ENDS,
    *nested("mid_block.resnets.{i}", "middle/blocks/{i}", RESNET),
    *nested("up_blocks.{i}.resnets.{j}", "up/{i}/{j}", RESNET),
    Row("up_blocks.{i}.upsamplers.0.conv", "upsamplers/{i}", LAYER),
)
VIDEO_DECODER = (
    *ENDS,
    *nested("mid_block.resnets.{i}", "middle/blocks/{i}", VIDEO_RESNET),
    *nested("up_blocks.{i}.resnets.{j}", "up/{i}/{j}", VIDEO_RESNET),
    Row("up_blocks.{i}.upsamplers.0.conv", "upsamplers/{i}", LAYER),
    Row("time_conv_out", "time_conv_out", BETWEEN_FRAMES),
)
SD = Table(
    (
        *nested("encoder", "encoder", ENCODER),
        *nested("decoder", "decoder", DECODER),
        Row("quant_conv", "quant_conv", LAYER),
        Row("post_quant_conv", "post_quant_conv", LAYER),
    )
)
SVD = Table(
    (
        *nested("encoder", "encoder", ENCODER),
        *nested("decoder", "decoder", VIDEO_DECODER),
        Row("quant_conv", "quant_conv", LAYER),
    )
)

TINY_BLOCK = (
    Row("conv.0", "convs/0", LAYER),
    Row("conv.2", "convs/1", LAYER),
    Row("conv.4", "convs/2", LAYER),
)
# Both halves of TAESD are published as one sequence of layers each; activations and upsampling
# count as well.
TAESD = Table(
    (
        Row("encoder.layers.0", "encoder/convs/0", LAYER),
        *nested("encoder.layers.1", "encoder/blocks/0/0", TINY_BLOCK),
        Row("encoder.layers.2", "encoder/convs/1", LAYER),
        *nested("encoder.layers.3", "encoder/blocks/1/0", TINY_BLOCK),
        *nested("encoder.layers.4", "encoder/blocks/1/1", TINY_BLOCK),
        *nested("encoder.layers.5", "encoder/blocks/1/2", TINY_BLOCK),
        Row("encoder.layers.6", "encoder/convs/2", LAYER),
        *nested("encoder.layers.7", "encoder/blocks/2/0", TINY_BLOCK),
        *nested("encoder.layers.8", "encoder/blocks/2/1", TINY_BLOCK),
        *nested("encoder.layers.9", "encoder/blocks/2/2", TINY_BLOCK),
        Row("encoder.layers.10", "encoder/convs/3", LAYER),
        *nested("encoder.layers.11", "encoder/blocks/3/0", TINY_BLOCK),
        *nested("encoder.layers.12", "encoder/blocks/3/1", TINY_BLOCK),
        *nested("encoder.layers.13", "encoder/blocks/3/2", TINY_BLOCK),
        Row("encoder.layers.14", "encoder/conv_out", LAYER),
        Row("decoder.layers.0", "decoder/conv_in", LAYER),
        *nested("decoder.layers.2", "decoder/blocks/0/0", TINY_BLOCK),
        *nested("decoder.layers.3", "decoder/blocks/0/1", TINY_BLOCK),
        *nested("decoder.layers.4", "decoder/blocks/0/2", TINY_BLOCK),
        Row("decoder.layers.6", "decoder/convs/0", LAYER),
        *nested("decoder.layers.7", "decoder/blocks/1/0", TINY_BLOCK),
        *nested("decoder.layers.8", "decoder/blocks/1/1", TINY_BLOCK),
        *nested("decoder.layers.9", "decoder/blocks/1/2", TINY_BLOCK),
        Row("decoder.layers.11", "decoder/convs/1", LAYER),
        *nested("decoder.layers.12", "decoder/blocks/2/0", TINY_BLOCK),
        *nested("decoder.layers.13", "decoder/blocks/2/1", TINY_BLOCK),
        *nested("decoder.layers.14", "decoder/blocks/2/2", TINY_BLOCK),
        Row("decoder.layers.16", "decoder/convs/2", LAYER),
        *nested("decoder.layers.17", "decoder/blocks/3/0", TINY_BLOCK),
        Row("decoder.layers.18", "decoder/convs/3", LAYER),
    )
)


def vae(arrays: Arrays, kind: str) -> AutoencoderKL | TinyAutoencoder:
    """A codec with published weights; its sizes are those of the arrays.

    Args:
      arrays: under the published names: the `vae` folder of Stable Diffusion 1.5 or of
        stabilityai/sd-vae-ft-mse ("sd"), of stabilityai/stable-video-diffusion-img2vid-xt ("svd"),
        or madebyollin/taesd ("taesd").
      kind: "sd", "svd" or "taesd", or as the command has it: "sd_vae", "svd_vae".

    Raises InputError for other arrays or another kind.
    """
    name = kind.removesuffix("_vae")
    if name not in RECOGNISE:
        raise InputError(f"no codec {kind!r}; give one of {', '.join(RECOGNISE)}")
    return RECOGNISE[name](arrays).model()


def sd(arrays: Arrays, where: str = "weights") -> Published[AutoencoderKL]:
    """Stable Diffusion's codec; raises InputError for other arrays."""
    config = _config(arrays, where, temporal=False)
    return Published(config, lambda rngs: AutoencoderKL(config, rngs=rngs), SD, arrays)


def svd(arrays: Arrays, where: str = "weights") -> Published[AutoencoderKL]:
    """Stable Video Diffusion's codec; raises InputError for other arrays."""
    config = _config(arrays, where, temporal=True)
    return Published(config, lambda rngs: AutoencoderKL(config, rngs=rngs), SVD, arrays)


def taesd(arrays: Arrays, where: str = "weights") -> Published[TinyAutoencoder]:
    """TAESD; raises InputError for other arrays."""
    first = arrays.get("decoder.layers.0.weight")
    if first is None or first.ndim != 4:
        raise InputError(f"{where}: not the weights of TAESD in diffusers' layout")
    config = TinyAutoencoderConfig(channels=first.shape[0], latent_channels=first.shape[1])
    return Published(config, lambda rngs: TinyAutoencoder(config, rngs=rngs), TAESD, arrays)


RECOGNISE: dict[str, Callable[..., Published]] = {"sd": sd, "svd": svd, "taesd": taesd}


def _config(arrays: Arrays, where: str, *, temporal: bool) -> AutoencoderKLConfig:
    blocks = re.compile(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv2\.bias")
    places = {
        (int(match[1]), int(match[2])): len(arrays[key])
        for key in arrays
        if (match := blocks.fullmatch(key))
    }
    if not places or "quant_conv.weight" not in arrays:
        raise InputError(
            f"{where}: not the weights of a Stable Diffusion codec in diffusers' layout"
        )
    return AutoencoderKLConfig(
        channels=tuple(width for (_, block), width in sorted(places.items()) if block == 0),
        layers=1 + max(block for _, block in places),
        latent_channels=len(arrays["quant_conv.weight"]) // 2,
        temporal=temporal,
    )
