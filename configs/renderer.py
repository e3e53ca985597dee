"""Sizes of the renderer that configs/autoencoder.py trains."""

from typing import Any

RENDERERS = ("tiny", "full", "tiny_dit", "full_dit")


def renderer(size: str) -> dict[str, Any]:
    """Fields of models.renderer.RendererConfig.

    full: X-NeMo's motion encoder and U-Nets (models/motion_encoder.py, models/video_unet.py), on
      the latents of a codec of our own (models/vae.py), so that no weights need be downloaded.
    tiny: the same networks for 128-pixel pictures, trained from nothing on two CPU cores. Its
    denoiser predicts the clean sample as a change of the reference, which it also sees stacked on
    the noisy latent, and a flow that moves the reference first: in our trials the first reached in
    minutes what predicting the velocity did not, and patches cannot follow a head that moves by
    pixels without the second.
    tiny_dit, full_dit: the same with diffusion transformers (models/video_dit.py) in place of the
    U-Nets.
    """
    fields = _renderer(size.removesuffix("_dit"))
    if size == "full_dit":
        fields["denoiser"] = {
            "kind": "dit",
            "dtype": "bfloat16",
            "scan": True,
            "rematerialise": True,
        }
    elif size == "tiny_dit":
        fields["denoiser"] = {
            "kind": "dit",
            "patch": 2,
            "width": 192,
            "depth": 6,
            "heads": 4,
            "feed_forward": 2,
            "motion_token": 16,
            "dtype": "float32",
        }
    return fields


def _renderer(size: str) -> dict[str, Any]:
    if size == "full":
        return {
            "image_size": 512,
            "view_scale": 2.0,
            # The released encoder's stored statistics cannot train.
            "encoder": {"norm": "group", "dtype": "bfloat16"},
            "denoiser": {
                "image_token": 0,  # the released networks also see a CLIP embedding
                "dtype": "bfloat16",
                "rematerialise": True,
            },
            "sampling": {"steps": 10, "motion_guidance": 2.5},
        }
    return {
        "image_size": 128,
        "view_scale": 1.6,
        "codec": {"factor": 8, "channels": 32, "hidden": 64, "scale": 0.5},
        "encoder": {
            "image_size": 80,
            "channels": (16, 32, 48),
            "hourglass_depth": 2,
            "attention_width": 64,
            "attention_heads": 2,
            "feed_forward": 2,
            "landmark_channels": 32,
            "map_channels": 4,
            "latent": 18,
            "box_width": 16,
            "tokens": 8,
            "token_width": 16,
            "norm": "group",
            "normalise_latent": True,
        },
        "denoiser": {
            "channels": (48, 96, 128),
            "layers": 1,
            "attention_levels": (False, True, False),
            "heads": 4,
            "groups": 8,
            "feed_forward": 2,
            "image_token": 0,
            "motion_token": 16,
            "motion_feed_forward": 1,
            "dtype": "float32",
        },
        "sampling": {"steps": 1, "motion_guidance": 1.35},
        "flow": {"prediction": "sample", "floor": 0.3},
        "stack_reference": True,
        "from_reference": True,
        "warps_reference": True,
        "motion_maps": 8,
    }
