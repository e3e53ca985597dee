"""CLIP's image encoder with its projection, in transformers' layout."""

from __future__ import annotations

import math

from xactor_jax.conversion.published import Published
from xactor_jax.conversion.weights import (
    ARRAY,
    LAYER,
    NORM,
    Arrays,
    Row,
    Table,
    nested,
)
from xactor_jax.errors import InputError
from xactor_jax.models.clip import CLIPImageEncoder, CLIPImageEncoderConfig

HEAD = 64  # features of an attention head, in every published size

TRANSFORMER_LAYER = (
    Row("layer_norm1", "norm1", NORM),
    Row("self_attn.q_proj", "attention/to_q", LAYER),
    Row("self_attn.k_proj", "attention/to_k", LAYER),
    Row("self_attn.v_proj", "attention/to_v", LAYER),
    Row("self_attn.out_proj", "attention/to_out", LAYER),
    Row("layer_norm2", "norm2", NORM),
    Row("mlp.fc1", "fc1", LAYER),
    Row("mlp.fc2", "fc2", LAYER),
)
TABLE = Table(
    (
        Row("vision_model.embeddings.class_embedding", "class_token", ARRAY),
        Row("vision_model.embeddings.patch_embedding", "patches", LAYER),
        Row("vision_model.embeddings.position_embedding.weight", "positions", ARRAY),
        # Spelt so.
        Row("vision_model.pre_layrnorm", "norm_in", NORM),
        *nested("vision_model.encoder.layers.{i}", "layers/{i}", TRANSFORMER_LAYER),
        Row("vision_model.post_layernorm", "norm_out", NORM),
        Row("visual_projection", "projection", LAYER),
    ),
    # A count from 0, and the half of CLIP that reads text.
    unused=(
        "vision_model.embeddings.position_ids",
        "text_model.*",
        "text_projection.weight",
        "logit_scale",
    ),
)


def clip(arrays: Arrays) -> CLIPImageEncoder:
    """CLIP's image encoder with published weights; its sizes are those of the arrays.

    arrays: under the published names: the `image_encoder` folder of
      lambdalabs/sd-image-variations-diffusers, or openai/clip-vit-large-patch14.
    Raises InputError for other arrays.
    """
    return recognise(arrays).model()


def recognise(arrays: Arrays, where: str = "weights") -> Published[CLIPImageEncoder]:
    """CLIP of the size of the arrays; raises InputError for other arrays."""
    try:
        config = _config(arrays)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{where}: not the weights of CLIP's image encoder in transformers' layout: "
            f"no usable {error}"
        ) from None
    return Published(config, lambda rngs: CLIPImageEncoder(config, rngs=rngs), TABLE, arrays)


def _config(arrays: Arrays) -> CLIPImageEncoderConfig:
    width, _, patch, _ = arrays["vision_model.embeddings.patch_embedding.weight"].shape
    tokens, _ = arrays["vision_model.embeddings.position_embedding.weight"].shape
    feed_forward, _ = arrays["vision_model.encoder.layers.0.mlp.fc1.weight"].shape
    projection, _ = arrays["visual_projection.weight"].shape
    return CLIPImageEncoderConfig(
        image_size=patch * math.isqrt(tokens - 1),
        patch=patch,
        width=width,
        layers=sum(key.endswith("mlp.fc1.bias") and "vision" in key for key in arrays),
        heads=width // HEAD,
        feed_forward=feed_forward,
        projection=projection,
    )
