"""A codec small enough for real time, into and out of Stable Diffusion's scaled latents (TAESD).

Layers: madebyollin/taesd taesd.py, diffusers src/diffusers/models/autoencoders/vae.py
(EncoderTiny, DecoderTiny).
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from xactor_jax.nn.blocks import upsample
from xactor_jax.nn.layers import Conv


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyAutoencoderConfig:
    """Sizes; the defaults are the published codec."""

    channels: int = 64
    latent_channels: int = 4
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    dtype: str = "float32"

    @property
    def factor(self) -> int:
        """Pixels of an image to one of a latent, along a side."""
        return 2 ** (len(self.decoder_blocks) - 1)


class TinyAutoencoder(nnx.Module):
    """Images to scaled latents and back, without norms or attention."""

    def __init__(self, config: TinyAutoencoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = TinyEncoder(config, rngs=rngs)
        self.decoder = TinyDecoder(config, rngs=rngs)

    def encode(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b h/f w/f c"]:
        """Pictures in [-1, 1] -> scaled latents."""
        x = (images.astype(self.config.dtype) + 1) / 2
        return self.encoder(x).astype(jnp.float32)

    def decode(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b h*f w*f 3"]:
        """Scaled latents, softly kept inside [-3, 3] -> pictures in about [-1, 1]."""
        x = 3 * jnp.tanh(latents.astype(self.config.dtype) / 3)
        return 2 * self.decoder(x).astype(jnp.float32) - 1


class TinyEncoder(nnx.Module):
    """Images in [0, 1] -> scaled latents; every stage but the first halves the grid."""

    def __init__(self, config: TinyAutoencoderConfig, *, rngs: nnx.Rngs):
        c, dtype = config, jnp.dtype(config.dtype)
        self.convs = nnx.List(
            [
                Conv(
                    c.channels if stage else 3,
                    c.channels,
                    (3, 3),
                    strides=2 if stage else 1,
                    padding=1,
                    use_bias=not stage,
                    dtype=dtype,
                    rngs=rngs,
                )
                for stage in range(len(c.encoder_blocks))
            ]
        )
        self.blocks = _stages(c.encoder_blocks, c.channels, dtype, rngs)
        self.conv_out = Conv(
            c.channels, c.latent_channels, (3, 3), padding=1, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h/f w/f c"]:
        for conv, blocks in zip(self.convs, self.blocks, strict=True):
            x = conv(x)
            for block in blocks:
                x = block(x)
        return self.conv_out(x)


class TinyDecoder(nnx.Module):
    """Scaled latents -> images in about [0, 1]; every stage but the last doubles the grid."""

    def __init__(self, config: TinyAutoencoderConfig, *, rngs: nnx.Rngs):
        c, dtype = config, jnp.dtype(config.dtype)
        last = len(c.decoder_blocks) - 1
        self.conv_in = Conv(
            c.latent_channels, c.channels, (3, 3), padding=1, dtype=dtype, rngs=rngs
        )
        self.blocks = _stages(c.decoder_blocks, c.channels, dtype, rngs)
        self.convs = nnx.List(
            [
                Conv(
                    c.channels,
                    c.channels if stage < last else 3,
                    (3, 3),
                    padding=1,
                    use_bias=stage == last,
                    dtype=dtype,
                    rngs=rngs,
                )
                for stage in range(last + 1)
            ]
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h*f w*f 3"]:
        x = nnx.relu(self.conv_in(x))
        for stage, (conv, blocks) in enumerate(zip(self.convs, self.blocks, strict=True)):
            for block in blocks:
                x = block(x)
            x = conv(upsample(x) if stage < len(self.convs) - 1 else x)
        return x


class TinyBlock(nnx.Module):
    """Three convolutions and a way around them (AutoencoderTinyBlock)."""

    def __init__(self, channels: int, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.convs = nnx.List(
            [Conv(channels, channels, (3, 3), padding=1, dtype=dtype, rngs=rngs) for _ in range(3)]
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        first, second, third = self.convs
        return nnx.relu(third(nnx.relu(second(nnx.relu(first(x))))) + x)


def _stages(counts: tuple[int, ...], channels: int, dtype, rngs: nnx.Rngs) -> nnx.List:
    return nnx.List(
        [
            nnx.List([TinyBlock(channels, dtype=dtype, rngs=rngs) for _ in range(count)])
            for count in counts
        ]
    )
