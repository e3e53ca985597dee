"""CLIP's image encoder: what the denoiser's cross-attention knows of the portrait.

Layers: transformers src/transformers/models/clip/modeling_clip.py (CLIPVisionModelWithProjection);
weights: the image encoder of lambdalabs/sd-image-variations-diffusers.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from xactor_jax.nn.attention import MultiHeadAttention
from xactor_jax.nn.layers import Conv, Linear
from xactor_jax.nn.norms import layer_norm

# Of the pictures that CLIP was trained on, in [0, 1] (openai/CLIP clip/clip.py).
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPImageEncoderConfig:
    """Sizes; the defaults are ViT-L/14."""

    image_size: int = 224
    patch: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    feed_forward: int = 4096
    projection: int = 768
    dtype: str = "float32"


class CLIPImageEncoder(nnx.Module):
    """Pictures to embeddings, by a vision transformer with a class token."""

    def __init__(self, config: CLIPImageEncoderConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype = jnp.dtype(c.dtype)
        tokens = (c.image_size // c.patch) ** 2 + 1
        draw = nnx.initializers.normal(0.02)
        self.class_token = nnx.Param(draw(rngs.params(), (c.width,)))
        self.positions = nnx.Param(draw(rngs.params(), (tokens, c.width)))
        self.patches = Conv(
            3,
            c.width,
            (c.patch, c.patch),
            strides=c.patch,
            padding=0,
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm_in = layer_norm(c.width, rngs)
        self.layers = nnx.List([CLIPLayer(c, rngs=rngs) for _ in range(c.layers)])
        self.norm_out = layer_norm(c.width, rngs)
        self.projection = Linear(c.width, c.projection, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """Square pictures in [-1, 1], of any size -> embeddings, not normalised to length 1."""
        c = self.config
        x = self.patches(standardised(images, c.image_size).astype(c.dtype))
        x = rearrange(x, "b h w d -> b (h w) d")
        start = jnp.broadcast_to(self.class_token[...].astype(x.dtype), (len(x), 1, c.width))
        x = jnp.concatenate([start, x], axis=1) + self.positions[...].astype(x.dtype)
        x = self.norm_in(x)
        for layer in self.layers:
            x = layer(x)
        return self.projection(self.norm_out(x[:, 0])).astype(jnp.float32)


class CLIPLayer(nnx.Module):
    """Attention and a feed-forward network, each after its norm."""

    def __init__(self, config: CLIPImageEncoderConfig, *, rngs: nnx.Rngs):
        c, dtype = config, jnp.dtype(config.dtype)
        self.norm1 = layer_norm(c.width, rngs)
        self.attention = MultiHeadAttention(c.width, c.heads, bias=True, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(c.width, rngs)
        self.fc1 = Linear(c.width, c.feed_forward, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(c.feed_forward, c.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        x = x + self.attention(self.norm1(x))
        hidden = self.fc1(self.norm2(x))
        # OpenAI's quick approximation of GELU.
        return x + self.fc2(hidden * jax.nn.sigmoid(1.702 * hidden))


def standardised(images: Float[Array, "b h w 3"], size: int) -> Float[Array, "b {size} {size} 3"]:
    """Square pictures in [-1, 1] as CLIP takes them (transformers CLIPImageProcessor)."""
    images = images.astype(jnp.float32)
    if images.shape[1:3] != (size, size):
        images = jax.image.resize(images, (len(images), size, size, 3), "cubic", antialias=True)
        images = jnp.clip(images, -1, 1)
    return ((images + 1) / 2 - MEAN) / DEVIATION
