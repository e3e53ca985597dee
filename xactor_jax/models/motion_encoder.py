"""The motion encoder: a face crop becomes one identity-free motion latent.

A face-alignment network with three attention blocks, squeezed through a single feature map
(bytedance/x-nemo-inference, src/models/motion_encoder; DeX-Portrait's supplement confirms the
512-d latent reshaped to 32 tokens of 16). Frames are encoded one by one.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from xactor_jax.nn.attention import MultiHeadAttention
from xactor_jax.nn.blocks import GatedFeedForward, resize
from xactor_jax.nn.embeddings import sincos_grid, sincos_positions
from xactor_jax.nn.layers import Conv, Linear
from xactor_jax.nn.norms import ConvolutionNorm, group_norm, layer_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionEncoderConfig:
    """Sizes; the defaults are the published encoder of 61.7 M parameters."""

    image_size: int = 224
    channels: tuple[int, int, int] = (64, 128, 256)
    hourglass_depth: int = 4
    attention_width: int = 1024
    attention_heads: int = 8
    feed_forward: int = 4
    landmark_channels: int = 68
    map_channels: int = 1  # feature maps that all motion must pass through
    latent: int = 512
    box_width: int = 64
    tokens: int = 32
    token_width: int = 16
    norm: str = "batch"  # as released; "group" to train from scratch
    normalise_latent: bool = False  # to zero mean and unit variance: a small network learns sooner
    dtype: str = "float32"


class MotionEncoder(nnx.Module):
    """Face crops in [-1, 1] -> motion latents -> the motion tokens the renderer attends to."""

    def __init__(self, config: MotionEncoderConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype = jnp.dtype(c.dtype)
        stem, middle, wide = c.channels

        def block(inside: int, outside: int) -> ConvolutionBlock:
            return ConvolutionBlock(inside, outside, c.norm, dtype=dtype, rngs=rngs)

        def attend(channels: int, grid: int, patch: int) -> PatchAttention:
            return PatchAttention(c, channels, grid, patch, rngs=rngs)

        def conv(inside: int, outside: int, size: int, stride: int = 1) -> nnx.Conv:
            return Conv(
                inside,
                outside,
                (size, size),
                strides=stride,
                padding=size // 2,
                dtype=dtype,
                rngs=rngs,
            )

        half = c.image_size // 2
        self.conv1, self.bn1 = conv(3, stem, 7, 2), ConvolutionNorm(stem, c.norm, rngs=rngs)
        self.conv2, self.att_1 = block(stem, middle), attend(middle, half, 4)
        self.conv3, self.conv4 = block(middle, middle), block(middle, wide)
        self.att_2 = attend(wide, half // 2, 2)
        self.hourglass = Hourglass(c.hourglass_depth, wide, c.norm, dtype=dtype, rngs=rngs)
        self.top = block(wide, wide)
        self.conv_last, self.bn_end = (
            conv(wide, wide, 1),
            ConvolutionNorm(wide, c.norm, rngs=rngs),
        )
        self.att_3 = attend(wide, half // 2, 2)
        self.landmarks = conv(wide, c.landmark_channels, 1)
        self.bn5 = ConvolutionNorm(c.landmark_channels, c.norm, rngs=rngs)
        self.conv6 = conv(c.landmark_channels, c.map_channels, 3, 2)
        self.fc = Linear(c.map_channels * (half // 4) ** 2, c.latent, dtype=dtype, rngs=rngs)
        self.latent_norm = layer_norm(c.latent, rngs, affine=False) if c.normalise_latent else None
        self.box_1 = Linear(3, c.box_width, dtype=dtype, rngs=rngs)
        self.box_2 = Linear(c.box_width, c.box_width, dtype=dtype, rngs=rngs)
        self.final_proj = Linear(
            c.latent + c.box_width, c.tokens * c.token_width, dtype=dtype, rngs=rngs
        )

    def encode(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """Driving crops in [-1, 1] -> motion latents."""
        x = nnx.relu(self.bn1(self.conv1(x.astype(self.config.dtype))))
        x = self.att_1(self.conv2(x))
        x = self.conv4(self.conv3(pool(x)))
        x = self.hourglass(self.att_2(x))
        x = self.att_3(self.bn_end(self.conv_last(self.top(x))))
        x = nnx.relu(self.bn5(self.landmarks(nnx.relu(x))))
        x = rearrange(self.conv6(x), "b h w c -> b (c h w)")
        latent = self.fc(nnx.relu(x)).astype(jnp.float32)
        return latent if self.latent_norm is None else self.latent_norm(latent)

    def fuse(
        self, latent: Float[Array, "b d"], box: Float[Array, "b 3"]
    ) -> Float[Array, "b tokens width"]:
        """Motion latents and head boxes (dy, dx, scale against the reference) -> motion tokens."""
        c = self.config
        box = self.box_2(nnx.relu(self.box_1(box)))
        fused = self.final_proj(jnp.concatenate([latent.astype(box.dtype), box], axis=-1))
        tokens = rearrange(fused, "b (n d) -> b n d", n=c.tokens)
        return tokens + sincos_positions(c.tokens, c.token_width)

    def __call__(
        self, x: Float[Array, "b h w 3"], box: Float[Array, "b 3"]
    ) -> Float[Array, "b tokens width"]:
        """Driving crops and head boxes -> motion tokens."""
        return self.fuse(self.encode(x), box)


class ConvolutionBlock(nnx.Module):
    """Three pre-activated convolutions whose outputs are stacked: 1/2, 1/4 and 1/4 of the width."""

    def __init__(self, channels: int, out: int, norm: str, *, dtype, rngs: nnx.Rngs):
        widths = (channels, out // 2, out // 4)
        outs = (out // 2, out // 4, out - out // 2 - out // 4)

        def conv(inside: int, outside: int, size: int) -> nnx.Conv:
            return Conv(
                inside,
                outside,
                (size, size),
                padding=size // 2,
                use_bias=False,
                dtype=dtype,
                rngs=rngs,
            )

        self.norms = nnx.List([ConvolutionNorm(width, norm, rngs=rngs) for width in widths])
        self.convs = nnx.List(
            [conv(inside, outside, 3) for inside, outside in zip(widths, outs, strict=True)]
        )
        same = channels == out
        self.skip_norm = None if same else ConvolutionNorm(channels, norm, rngs=rngs)
        self.skip = None if same else conv(channels, out, 1)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        h, parts = x, []
        for norm, convolve in zip(self.norms, self.convs, strict=True):
            h = convolve(nnx.relu(norm(h)))
            parts.append(h)
        if self.skip is not None and self.skip_norm is not None:
            x = self.skip(nnx.relu(self.skip_norm(x)))
        return x + jnp.concatenate(parts, axis=-1)


class Hourglass(nnx.Module):
    """Blocks at falling resolutions, each added back to the resolution above it."""

    def __init__(self, depth: int, channels: int, norm: str, *, dtype, rngs: nnx.Rngs):
        def block() -> ConvolutionBlock:
            return ConvolutionBlock(channels, channels, norm, dtype=dtype, rngs=rngs)

        self.beside, self.before = block(), block()
        self.within = (
            Hourglass(depth - 1, channels, norm, dtype=dtype, rngs=rngs) if depth > 1 else block()
        )
        self.after = block()

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        low = self.after(self.within(self.before(pool(x))))
        return self.beside(x) + resize(low, (x.shape[1], x.shape[2]))


class PatchAttention(nnx.Module):
    """Patches of the feature map attend to each other once; the result is added to the map."""

    def __init__(
        self, config: MotionEncoderConfig, channels: int, grid: int, patch: int, *, rngs: nnx.Rngs
    ):
        c, dtype = config, jnp.dtype(config.dtype)
        self.patch, self.side, self.width = patch, grid // patch, c.attention_width
        self.norm = group_norm(channels, 32, 1e-6, rngs)
        self.proj = Conv(
            channels,
            self.width,
            (patch, patch),
            strides=patch,
            padding="VALID",
            dtype=dtype,
            rngs=rngs,
        )
        self.norm1 = layer_norm(self.width, rngs)
        self.attn = MultiHeadAttention(self.width, c.attention_heads, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(self.width, rngs)
        self.ff = GatedFeedForward(self.width, c.feed_forward, dtype=dtype, rngs=rngs)
        self.proj_out = Linear(
            self.width // patch**2,
            channels,
            kernel_init=nnx.initializers.zeros,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        h = self.proj(self.norm(x)) + sincos_grid(self.side, self.width).astype(x.dtype)
        h = rearrange(h, "b h w d -> b (h w) d")
        h = h + self.attn(self.norm1(h))
        h = h + self.ff(self.norm2(h))
        h = rearrange(h, "b n (p q d) -> b n p q d", p=self.patch, q=self.patch)
        h = rearrange(self.proj_out(h), "b (h w) p q c -> b (h p) (w q) c", h=self.side)
        return x + h


def pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """2x2 maximum."""
    return nnx.max_pool(x, (2, 2), strides=(2, 2))
