"""Stable Diffusion's codec, with its own decoder or Stable Video Diffusion's temporal one.

Exact sizes and layers: diffusers src/diffusers/models/autoencoders/{vae,autoencoder_kl,
autoencoder_kl_temporal_decoder}.py.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from xactor_jax.nn.attention import MultiHeadAttention
from xactor_jax.nn.blocks import ResnetBlock, upsample
from xactor_jax.nn.layers import Conv
from xactor_jax.nn.norms import group_norm

EPSILON = 1e-6  # of every norm but those between frames, which have 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderKLConfig:
    """Sizes; the defaults are the published codec. Each level but the last halves the grid."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2  # residual blocks a level in the encoder; the decoder has one more
    latent_channels: int = 4
    groups: int = 32
    scale: float = 0.18215
    temporal: bool = False  # the decoder of Stable Video Diffusion
    dtype: str = "float32"

    @property
    def factor(self) -> int:
        """Pixels of an image to one of a latent, along a side."""
        return 2 ** (len(self.channels) - 1)


class AutoencoderKL(nnx.Module):
    """Images to scaled latents and back."""

    def __init__(self, config: AutoencoderKLConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype, latent = jnp.dtype(c.dtype), c.latent_channels
        self.encoder = Encoder(c, rngs=rngs)
        self.quant_conv = Conv(2 * latent, 2 * latent, (1, 1), dtype=dtype, rngs=rngs)
        # The temporal decoder was published without this convolution.
        self.post_quant_conv = (
            None if c.temporal else Conv(latent, latent, (1, 1), dtype=dtype, rngs=rngs)
        )
        self.decoder = Decoder(c, rngs=rngs)

    def encode(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b h/f w/f c"]:
        """Pictures in [-1, 1] -> the mean of their latents, scaled to be denoised."""
        moments = self.quant_conv(self.encoder(images.astype(self.config.dtype)))
        mean = moments[..., : self.config.latent_channels]
        return self.config.scale * mean.astype(jnp.float32)

    def decode(
        self, latents: Float[Array, "b h w c"], frames: int | None = None
    ) -> Float[Array, "b h*f w*f 3"]:
        """Scaled latents -> pictures in about [-1, 1].

        With a temporal decoder every `frames` latents in a row are one video; by default all are.
        """
        x = (latents / self.config.scale).astype(self.config.dtype)
        if self.post_quant_conv is not None:
            x = self.post_quant_conv(x)
        return self.decoder(x, frames or len(latents)).astype(jnp.float32)


class Encoder(nnx.Module):
    """Images -> mean and log variance, before their last convolution."""

    def __init__(self, config: AutoencoderKLConfig, *, rngs: nnx.Rngs):
        c, dtype = config, jnp.dtype(config.dtype)
        self.conv_in = Conv(3, c.channels[0], (3, 3), padding=1, dtype=dtype, rngs=rngs)
        down, downsamplers, width = [], [], c.channels[0]
        for level, out in enumerate(c.channels):
            blocks = []
            for _ in range(c.layers):
                blocks.append(_resnet(c, width, out, rngs))
                width = out
            down.append(nnx.List(blocks))
            if level < len(c.channels) - 1:
                # Padded at the bottom and at the right only.
                pad = [(0, 1), (0, 1)]
                downsamplers.append(
                    Conv(out, out, (3, 3), strides=2, padding=pad, dtype=dtype, rngs=rngs)
                )
        self.down, self.downsamplers = nnx.List(down), nnx.List(downsamplers)
        self.middle = Middle(c, temporal=False, rngs=rngs)
        self.norm_out = group_norm(width, c.groups, EPSILON, rngs)
        self.conv_out = Conv(
            width, 2 * c.latent_channels, (3, 3), padding=1, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h/f w/f 2*c"]:
        x = self.conv_in(x)
        for level, blocks in enumerate(self.down):
            for block in blocks:
                x = block(x)
            if level < len(self.downsamplers):
                x = self.downsamplers[level](x)
        return self.conv_out(nnx.silu(self.norm_out(self.middle(x, 1))))


class Decoder(nnx.Module):
    """Latents -> images; a temporal one also mixes neighbouring frames in every block."""

    def __init__(self, config: AutoencoderKLConfig, *, rngs: nnx.Rngs):
        c, dtype = config, jnp.dtype(config.dtype)
        width = c.channels[-1]
        self.conv_in = Conv(c.latent_channels, width, (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.middle = Middle(c, temporal=c.temporal, rngs=rngs)
        up, upsamplers = [], []
        for level, out in reversed(list(enumerate(c.channels))):
            blocks = []
            for _ in range(c.layers + 1):
                blocks.append(_block(c, width, out, c.temporal, rngs))
                width = out
            up.append(nnx.List(blocks))
            if level:
                upsamplers.append(Conv(out, out, (3, 3), padding=1, dtype=dtype, rngs=rngs))
        self.up, self.upsamplers = nnx.List(up), nnx.List(upsamplers)
        self.norm_out = group_norm(width, c.groups, EPSILON, rngs)
        self.conv_out = Conv(width, 3, (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.time_conv_out = (
            Conv(3, 3, (3, 1), padding=[(1, 1), (0, 0)], dtype=dtype, rngs=rngs)
            if c.temporal
            else None
        )

    def __call__(self, x: Float[Array, "b h w c"], frames: int) -> Float[Array, "b h*f w*f 3"]:
        x = self.middle(self.conv_in(x), frames)
        for level, blocks in enumerate(self.up):
            for block in blocks:
                x = _apply(block, x, frames)
            if level < len(self.upsamplers):
                x = self.upsamplers[level](upsample(x))
        x = self.conv_out(nnx.silu(self.norm_out(x)))
        if self.time_conv_out is None:
            return x
        return _join_frames(self.time_conv_out(_split_frames(x, frames)), x.shape)


class Middle(nnx.Module):
    """Two residual blocks with an attention among all pixels of a picture between them."""

    def __init__(self, config: AutoencoderKLConfig, *, temporal: bool, rngs: nnx.Rngs):
        width = config.channels[-1]
        self.blocks = nnx.List([_block(config, width, width, temporal, rngs) for _ in range(2)])
        self.norm = group_norm(width, config.groups, EPSILON, rngs)
        self.attention = MultiHeadAttention(
            width, 1, bias=True, dtype=jnp.dtype(config.dtype), rngs=rngs
        )

    def __call__(self, x: Float[Array, "b h w c"], frames: int) -> Float[Array, "b h w c"]:
        x = _apply(self.blocks[0], x, frames)
        tokens = rearrange(self.norm(x), "b h w c -> b (h w) c")
        x = x + self.attention(tokens).reshape(x.shape)
        return _apply(self.blocks[1], x, frames)


class VideoBlock(nnx.Module):
    """A residual block within frames, then one between them, blended (SpatioTemporalResBlock)."""

    def __init__(self, config: AutoencoderKLConfig, channels: int, out: int, *, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.dtype)
        self.spatial = _resnet(config, channels, out, rngs)
        self.temporal = ResnetBlock(
            out, out, None, config.groups, kernel=(3, 1), dtype=dtype, rngs=rngs
        )
        self.mix_factor = nnx.Param(jnp.zeros(1))

    def __call__(self, x: Float[Array, "b h w c"], frames: int) -> Float[Array, "b h w d"]:
        x = self.spatial(x)
        mixed = _join_frames(self.temporal(_split_frames(x, frames)), x.shape)
        share = jax.nn.sigmoid(self.mix_factor[...])
        return (x + share * (mixed - x)).astype(x.dtype)


def _resnet(config: AutoencoderKLConfig, channels: int, out: int, rngs: nnx.Rngs) -> ResnetBlock:
    dtype = jnp.dtype(config.dtype)
    return ResnetBlock(channels, out, None, config.groups, epsilon=EPSILON, dtype=dtype, rngs=rngs)


def _block(
    config: AutoencoderKLConfig, channels: int, out: int, temporal: bool, rngs: nnx.Rngs
) -> ResnetBlock | VideoBlock:
    if temporal:
        return VideoBlock(config, channels, out, rngs=rngs)
    return _resnet(config, channels, out, rngs)


def _apply(
    block: ResnetBlock | VideoBlock, x: Float[Array, "bt h w c"], frames: int
) -> Float[Array, "bt h w d"]:
    return block(x, frames) if isinstance(block, VideoBlock) else block(x)


def _split_frames(x: Float[Array, "bt h w c"], frames: int) -> Float[Array, "b t hw c"]:
    """Time as a side of a picture, for convolutions and norms over time."""
    return rearrange(x, "(b t) h w c -> b t (h w) c", t=frames)


def _join_frames(x: Float[Array, "b t hw c"], shape: tuple[int, ...]) -> Float[Array, "bt h w c"]:
    return x.reshape(*shape[:-1], -1)
