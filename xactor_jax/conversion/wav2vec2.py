"""wav2vec2 of the base size, in transformers' layout."""

from __future__ import annotations

import numpy as np

from xactor_jax.conversion.published import Published
from xactor_jax.conversion.weights import LAYER, NORM, Arrays, Row, Table, nested
from xactor_jax.errors import InputError
from xactor_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config

HEAD = 64  # features of an attention head, in every published size
POSITIONS = "encoder.pos_conv_embed.conv"
# Length and direction of its kernel, as torch names them before 2.0 and since.
WEIGHT_NORM = (
    (f"{POSITIONS}.weight_g", f"{POSITIONS}.weight_v"),
    (
        f"{POSITIONS}.parametrizations.weight.original0",
        f"{POSITIONS}.parametrizations.weight.original1",
    ),
)

TRANSFORMER_LAYER = (
    Row("attention.q_proj", "attention/to_q", LAYER),
    Row("attention.k_proj", "attention/to_k", LAYER),
    Row("attention.v_proj", "attention/to_v", LAYER),
    Row("attention.out_proj", "attention/to_out", LAYER),
    Row("layer_norm", "norm1", NORM),
    Row("feed_forward.intermediate_dense", "fc1", LAYER),
    Row("feed_forward.output_dense", "fc2", LAYER),
    Row("final_layer_norm", "norm2", NORM),
)
TABLE = Table(
    (
        Row("feature_extractor.conv_layers.{i}.conv", "convs/{i}", LAYER),
        Row("feature_extractor.conv_layers.0.layer_norm", "conv_norm", NORM),
        Row("feature_projection.layer_norm", "feature_norm", NORM),
        Row("feature_projection.projection", "projection", LAYER),
        Row(POSITIONS, "positions", LAYER),
        Row("encoder.layer_norm", "norm", NORM),
        *nested("encoder.layers.{i}", "layers/{i}", TRANSFORMER_LAYER),
    ),
    # The token that hides audio in pretraining, its quantiser, and the head that spells.
    unused=("masked_spec_embed", "lm_head.*", "quantizer.*", "project_q.*", "project_hid.*"),
)


def wav2vec2(arrays: Arrays) -> Wav2Vec2:
    """wav2vec2 with published weights; its sizes are those of the arrays.

    arrays: under the published names, as in facebook/wav2vec2-base-960h.
    Raises InputError for other arrays.
    """
    return recognise(arrays).model()


def recognise(arrays: Arrays, where: str = "weights") -> Published[Wav2Vec2]:
    """wav2vec2 of the size of the arrays; raises InputError for other arrays."""
    try:
        arrays = _with_plain_positions(arrays)
        config = _config(arrays)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{where}: not the weights of wav2vec2-base in transformers' layout: no usable {error}"
        ) from None
    return Published(config, lambda rngs: Wav2Vec2(config, rngs=rngs), TABLE, arrays)


def _with_plain_positions(arrays: Arrays) -> Arrays:
    """Length and direction of the positional convolution's kernel, multiplied (weight norm)."""
    plain = {key.removeprefix("wav2vec2."): array for key, array in arrays.items()}
    for length, direction in WEIGHT_NORM:
        if length in plain:
            scale, kernel = (np.asarray(plain.pop(key), np.float32) for key in (length, direction))
            norm = np.sqrt(np.sum(np.square(kernel), axis=(0, 1), keepdims=True))
            plain[f"{POSITIONS}.weight"] = scale * kernel / norm
    return plain


def _config(arrays: Arrays) -> Wav2Vec2Config:
    width, conv_channels = arrays["feature_projection.projection.weight"].shape
    _, inside, position_kernel = arrays[f"{POSITIONS}.weight"].shape
    feed_forward, _ = arrays["encoder.layers.0.feed_forward.intermediate_dense.weight"].shape
    return Wav2Vec2Config(
        conv_channels=conv_channels,
        width=width,
        layers=sum(key.endswith("intermediate_dense.bias") for key in arrays),
        heads=width // HEAD,
        feed_forward=feed_forward,
        position_kernel=position_kernel,
        position_groups=width // inside,
    )
