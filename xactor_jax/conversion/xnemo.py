"""The released X-NeMo networks: their published names, their sizes, and the files they come in.

Names as in bytedance/x-nemo-inference, src/models/{motion_encoder,unet_3d,unet_2d_condition}.py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from xactor_jax.conversion.output import Network, write_networks
from xactor_jax.conversion.weights import (
    BATCH_NORM,
    LAYER,
    NORM,
    POINTWISE,
    Arrays,
    Row,
    Table,
    build_model,
    convert_state,
    nested,
)
from xactor_jax.errors import InputError
from xactor_jax.models.motion_encoder import MotionEncoder, MotionEncoderConfig
from xactor_jax.models.video_unet import UNet, UNetConfig

# Small ones have the parts of the full ones; they are for tests of agreement.
SIZES = {
    "small": {"channels": (32, 64, 128, 128), "image_token": 64},
    "full": {},
}
SUFFIXES = (".safetensors", ".pth")

_ATTENTION = (
    *(Row(name, name, LAYER) for name in ("to_q", "to_k", "to_v")),
    Row("to_out.0", "to_out", LAYER),
)
_FEED_FORWARD = (Row("net.0.proj", "proj", LAYER), Row("net.2", "out", LAYER))


def _motion_encoder() -> Table:
    block = (
        *(Row(f"bn{n + 1}", f"norms/{n}", BATCH_NORM) for n in range(3)),
        *(Row(f"conv{n + 1}", f"convs/{n}", LAYER) for n in range(3)),
        Row("downsample.0", "skip_norm", BATCH_NORM),
        Row("downsample.2", "skip", LAYER),
    )
    attention = (
        Row("norm", "norm", NORM),
        Row("pos_embed.proj", "proj", LAYER),
        *nested(
            "transformer_blocks.0",
            "",
            (
                Row("norms.0", "norm1", NORM),
                *nested("attention_blocks.0", "attn", _ATTENTION),
                Row("ff_norm", "norm2", NORM),
                *nested("ff", "ff", _FEED_FORWARD),
            ),
        ),
        Row("proj_out", "proj_out", LAYER),
    )
    # Levels are counted from the lowest resolution, which lies innermost here.
    depth = MotionEncoderConfig().hourglass_depth
    hourglass = [
        row
        for level in range(depth, 0, -1)
        for n, part in enumerate(("beside", "before", "after"), start=1)
        for row in nested(f"b{n}_{level}", "/".join(["within"] * (depth - level) + [part]), block)
    ]
    hourglass += nested("b2_plus_1", "/".join(["within"] * depth), block)
    model = (
        Row("conv1", "conv1", LAYER),
        Row("bn1", "bn1", BATCH_NORM),
        *nested("conv{i}", "conv{i}", block),
        *nested("m0", "hourglass", hourglass),
        *nested("top_m_0", "top", block),
        Row("conv_last0", "conv_last", LAYER),
        Row("bn_end0", "bn_end", BATCH_NORM),
        Row("l0", "landmarks", LAYER),
        Row("bn5", "bn5", BATCH_NORM),
        Row("conv6", "conv6", LAYER),
        Row("fc", "fc", LAYER),
        *nested("att_{i}", "att_{i}", attention),
    )
    return Table(
        (
            *nested("model", "", model),
            Row("bbox_proj.0", "box_1", LAYER),
            Row("bbox_proj.3", "box_2", LAYER),
            Row("final_proj", "final_proj", LAYER),
        ),
        unused=("*.num_batches_tracked", "pe", "*.pos_embed.pos_embed"),
    )


def _unet_parts() -> tuple[tuple[str, str, tuple[Row, ...]], ...]:
    """The kinds of modules: their published name, ours, and what is in them."""
    resnet = (
        Row("norm1", "norm1", NORM),
        Row("conv1", "conv1", LAYER),
        Row("time_emb_proj", "time_emb_proj", LAYER),
        Row("norm2", "norm2", NORM),
        Row("conv2", "conv2", LAYER),
        Row("conv_shortcut", "shortcut", LAYER),
    )
    transformer = (
        Row("norm", "norm", NORM),
        Row("proj_in", "proj_in", POINTWISE),
        *nested(
            "transformer_blocks.0",
            "",
            (
                *(Row(f"norm{n}", f"norm{n}", NORM) for n in (1, 2, 3)),
                *nested("attn1", "attn1", _ATTENTION),
                *nested("attn2", "attn2", _ATTENTION),
                *nested("ff", "ff", _FEED_FORWARD),
            ),
        ),
        Row("proj_out", "proj_out", POINTWISE),
    )
    module = nested(
        "temporal_transformer",
        "",
        (
            Row("norm", "norm", NORM),
            Row("proj_in", "proj_in", LAYER),
            *nested(
                "transformer_blocks.0",
                "",
                (
                    Row("norms.{k}", "norms/{k}", NORM),
                    *nested("attention_blocks.{k}", "attentions/{k}", _ATTENTION),
                    Row("ff_norm", "ff_norm", NORM),
                    *nested("ff", "ff", _FEED_FORWARD),
                ),
            ),
            Row("proj_out", "proj_out", LAYER),
        ),
    )
    return (
        ("resnets", "resnet", resnet),
        ("attentions", "attention", transformer),
        ("motion_modules", "motion", module),
        ("temporal_modules", "temporal", module),
    )


def _unet() -> Table:
    parts = _unet_parts()
    rows = [
        row
        for side in ("down", "up")
        for published, ours, part in parts
        for row in nested(
            f"{side}_blocks.{{i}}.{published}.{{j}}", f"{side}/{{i}}/{{j}}/{ours}", part
        )
    ]
    for published, ours, part in parts:
        rows += nested(f"mid_block.{published}.0", f"mid/{ours}", part)
    rows += nested("mid_block.resnets.1", "mid_resnet", parts[0][2])
    rows += [
        Row("conv_in", "conv_in", LAYER),
        Row("time_embedding.linear_1", "time_embedding/linear_1", LAYER),
        Row("time_embedding.linear_2", "time_embedding/linear_2", LAYER),
        Row("down_blocks.{i}.downsamplers.0.conv", "downsamplers/{i}", LAYER),
        Row("up_blocks.{i}.upsamplers.0.conv", "upsamplers/{i}", LAYER),
        Row("conv_norm_out", "norm_out", NORM),
        Row("conv_out", "conv_out", LAYER),
    ]
    return Table(tuple(rows), unused=("*.pos_encoder.pe",))


MOTION_ENCODER = _motion_encoder()
UNET = _unet()


def denoiser_config(size: str) -> UNetConfig:
    """Sizes of the denoiser with motion and temporal modules; raises InputError as below."""
    return UNetConfig(temporal=True, **_sizes(size))


def reference_config(size: str) -> UNetConfig:
    """Sizes of the reference network; raises InputError as below."""
    return UNetConfig(out_channels=None, motion_token=0, **_sizes(size))


def _sizes(size: str) -> dict:
    if size not in SIZES:
        raise InputError(f"no size {size!r}; give one of {', '.join(SIZES)}")
    return SIZES[size]


def motion_encoder(arrays: Arrays) -> MotionEncoder:
    """The released motion encoder (x-nemo-inference src/models/motion_encoder).

    arrays: its 407 entries under their published names.
    Raises InputError for a missing or unknown key or another shape.
    """
    config = MotionEncoderConfig()
    return build_model(lambda rngs: MotionEncoder(config, rngs=rngs), MOTION_ENCODER, arrays)


def denoiser(arrays: Arrays, size: str = "full") -> UNet:
    """The released denoiser with its motion and temporal modules (src/models/unet_3d.py).

    arrays: its 1820 entries under their published names, those of the temporal modules included.
    size: "full", or "small" for tests of agreement.
    Raises InputError for a missing or unknown key, another shape or an unknown size.
    """
    config = denoiser_config(size)
    return build_model(lambda rngs: UNet(config, rngs=rngs), UNET, arrays)


def reference_network(arrays: Arrays, size: str = "full") -> UNet:
    """The released reference network (src/models/unet_2d_condition.py).

    arrays: its 682 entries under their published names.
    size: "full", or "small" for tests of agreement.
    Raises InputError for a missing or unknown key, another shape or an unknown size.
    """
    config = reference_config(size)
    return build_model(lambda rngs: UNet(config, rngs=rngs), UNET, arrays)


def convert(source: Path, output: Path) -> list[Path]:
    """Write the three networks of the folder `source` into the folder `output`.

    Raises InputError for a missing, damaged or foreign file.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the one with xnemo_denoising_unet.pth")
    encoder, reference = MotionEncoderConfig(), reference_config("full")
    denoiser = denoiser_config("full")
    networks = (
        Network(
            "motion_encoder",
            encoder,
            (_file(source, "xnemo_motion_encoder"),),
            partial(convert_state, lambda rngs: MotionEncoder(encoder, rngs=rngs), MOTION_ENCODER),
        ),
        Network(
            "reference_network",
            reference,
            (_file(source, "xnemo_reference_unet"),),
            partial(convert_state, lambda rngs: UNet(reference, rngs=rngs), UNET),
        ),
        # Where both files have a key the second counts, as in scripts/pose2vid_xnemo.py.
        Network(
            "denoiser",
            denoiser,
            (_file(source, "xnemo_denoising_unet"), _file(source, "xnemo_temporal_module")),
            partial(convert_state, lambda rngs: UNet(denoiser, rngs=rngs), UNET),
        ),
    )
    return write_networks(output, "xnemo", networks)


def _file(source: Path, name: str) -> Path:
    found = [path for suffix in SUFFIXES if (path := source / f"{name}{suffix}").is_file()]
    if not found:
        raise InputError(f"{source}: lacks {name}.pth; give the folder with the released weights")
    return found[0]
