"""The image half of the renderer, its reference network, and the temporal layers of the video half.

Both networks are Stable Diffusion U-Nets. The denoiser adds a motion module after every layer (and
a temporal module after that); the reference network has neither, runs once per portrait, and
shares the normalised tokens of its attention blocks with the denoiser's. Exact full sizes:
bytedance/x-nemo-inference, src/models/unet_3d.py and unet_2d_condition.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float

from xactor_jax.nn.attention import KeysAndValues
from xactor_jax.nn.blocks import AttentionModule, ResnetBlock, Shared, SpatialTransformer, upsample
from xactor_jax.nn.embeddings import NoiseLevelEmbedding
from xactor_jax.nn.layers import Conv, Linear
from xactor_jax.nn.norms import group_norm
from xactor_jax.sharding import constrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of a U-Net; the defaults are the published denoiser without temporal modules."""

    kind: Literal["unet"] = "unet"  # tells a weights file's networks apart
    in_channels: int = 4
    out_channels: int | None = 4  # None: a reference network, which ends at its last block
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    heads: int = 8
    groups: int = 32
    feed_forward: int = 4
    image_token: int = 768  # width of the CLIP token; 0: none
    motion_token: int = 16  # width of a motion token; 0: no motion modules
    motion_feed_forward: int = 4
    pooled_motion: int = 0  # width of a motion latent added to the noise embedding; 0: none
    temporal: bool = False
    max_frames: int = 32
    dtype: str = "float32"
    rematerialise: bool = False  # compute layers again in the backward pass, to save memory


class Layer(nnx.Module):
    """Resnet, then spatial transformer, motion module and temporal module where they exist."""

    def __init__(
        self, config: UNetConfig, channels: int, out: int, attends: bool, *, rngs: nnx.Rngs
    ):
        c, dtype = config, jnp.dtype(config.dtype)
        embedding = 4 * c.channels[0]
        self.resnet = ResnetBlock(channels, out, embedding, c.groups, dtype=dtype, rngs=rngs)

        def module(**kind) -> AttentionModule:
            multiplier = c.motion_feed_forward
            return AttentionModule(
                out, c.heads, c.groups, multiplier, dtype=dtype, rngs=rngs, **kind
            )

        self.attention = (
            SpatialTransformer(
                out, c.heads, c.groups, c.feed_forward, c.image_token, dtype=dtype, rngs=rngs
            )
            if attends
            else None
        )
        self.motion = module(key_width=c.motion_token) if c.motion_token else None
        self.temporal = module(max_frames=c.max_frames) if c.temporal else None

    def __call__(
        self, x: Float[Array, "bt h w c"], run: Run, shared: Shared | None
    ) -> tuple[Float[Array, "bt h w d"], Float[Array, "bt n d"] | None]:
        """The layer's output and, if it attends, its normalised tokens."""
        x, tokens = self.resnet(x, run.embedding), None
        if self.attention is not None:
            x, tokens = self.attention(x, run.image_token, shared, run.seen)
        return self.modules(x, run), tokens

    def modules(self, x: Float[Array, "bt h w c"], run: Run) -> Float[Array, "bt h w c"]:
        if self.motion is None and self.temporal is None:
            return x
        video = rearrange(x, "(b t) h w c -> b t h w c", t=run.frames)
        if self.motion is not None:
            video = self.motion(video, run.motion)
        if self.temporal is not None:
            video = self.temporal(video)
        return rearrange(video, "b t h w c -> (b t) h w c")


class Run:
    """What one forward pass hands from layer to layer."""

    def __init__(
        self, frames, embedding, image_token, motion, reference, seen, rematerialise=False
    ):
        self.frames, self.embedding = frames, embedding
        self.image_token, self.motion, self.seen = image_token, motion, seen
        self.rematerialise = rematerialise
        self.tokens: list[Float[Array, "bt n c"]] = []
        self._reference: Iterator | None = None if reference is None else iter(reference)

    def through(self, layer: Layer, x: Float[Array, "bt h w c"]) -> Float[Array, "bt h w d"]:
        shared = None
        if layer.attention is not None and self._reference is not None:
            shared = next(self._reference)
        call = functools.partial(layer, run=self, shared=shared)
        x, tokens = (jax.checkpoint(call) if self.rematerialise else call)(constrain(x, "rows"))
        if tokens is not None:
            self.tokens.append(tokens)
        return x


class UNet(nnx.Module):
    """Stable Diffusion's U-Net over the frames of a window."""

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype = jnp.dtype(c.dtype)
        levels = len(c.channels)

        conv = functools.partial(Conv, kernel_size=(3, 3), padding=1, dtype=dtype, rngs=rngs)

        self.time_embedding = NoiseLevelEmbedding(
            c.channels[0], 4 * c.channels[0], dtype=dtype, rngs=rngs
        )
        self.pooled_motion = (
            Linear(c.pooled_motion, 4 * c.channels[0], dtype=dtype, rngs=rngs)
            if c.pooled_motion
            else None
        )
        self.conv_in = conv(c.in_channels, c.channels[0])

        down, downsamplers, skips, width = [], [], [c.channels[0]], c.channels[0]
        for level, (out, attends) in enumerate(zip(c.channels, c.attention_levels, strict=True)):
            layers = []
            for _ in range(c.layers):
                layers.append(Layer(c, width, out, attends, rngs=rngs))
                width = out
                skips.append(width)
            down.append(nnx.List(layers))
            if level < levels - 1:
                downsamplers.append(conv(width, width, strides=2))
                skips.append(width)
        self.down, self.downsamplers = nnx.List(down), nnx.List(downsamplers)

        self.mid = Layer(c, width, width, True, rngs=rngs)
        self.mid_resnet = ResnetBlock(
            width, width, 4 * c.channels[0], c.groups, dtype=dtype, rngs=rngs
        )

        up, upsamplers = [], []
        for level in reversed(range(levels)):
            layers, out = [], c.channels[level]
            for _ in range(c.layers + 1):
                attends = c.attention_levels[level]
                layers.append(Layer(c, width + skips.pop(), out, attends, rngs=rngs))
                width = out
            up.append(nnx.List(layers))
            if level:
                upsamplers.append(conv(width, width))
        self.up, self.upsamplers = nnx.List(up), nnx.List(upsamplers)

        # A reference network ends at its last block.
        self.norm_out = group_norm(width, c.groups, 1e-5, rngs) if c.out_channels else None
        self.conv_out = (
            conv(width, c.out_channels, kernel_init=nnx.initializers.zeros)
            if c.out_channels
            else None
        )

    def __call__(
        self,
        latents: Float[Array, "b t h w c"],
        noise_level: Float[Array, " b"],
        *,
        image_token: Float[Array, "b k i"] | None = None,
        motion: Float[Array, "b t n d"] | None = None,
        pooled_motion: Float[Array, "b t p"] | None = None,
        reference: Sequence[Shared] | None = None,
        reference_seen: Bool[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b t h w o"] | None, list[Float[Array, "bt n c"]]]:
        """One denoising pass.

        Args:
          latents: noisy latents (with further conditions stacked on their channels).
          noise_level: in [0, 1], one per video.
          image_token: the reference image's embedding, where the network has cross-attention.
          motion: motion tokens of each frame.
          pooled_motion: the motion latent of each frame, where it joins the noise embedding.
          reference: the tokens that `UNet.__call__` of the reference network returned, or what
            `share` made of them.
          reference_seen: False for a video that must not see its reference (guidance).

        Returns:
          The prediction (None for a reference network) and this network's own attention tokens,
          in the order of its attention blocks.
        """
        b, t = latents.shape[:2]
        embedding = repeat(self.time_embedding(noise_level), "b e -> b t e", t=t)
        if self.pooled_motion is not None and pooled_motion is not None:
            embedding = embedding + self.pooled_motion(pooled_motion)
        run = Run(
            t,
            rearrange(embedding, "b t e -> (b t) e"),
            None if image_token is None else repeat(image_token, "b k i -> (b t) k i", t=t),
            motion,
            reference,
            None if reference_seen is None else repeat(reference_seen, "b -> (b t)", t=t),
            self.config.rematerialise,
        )
        x = self._body(rearrange(latents, "b t h w c -> (b t) h w c"), run)
        if self.norm_out is None or self.conv_out is None:
            return None, run.tokens
        x = self.conv_out(nnx.silu(self.norm_out(x)))
        return rearrange(x, "(b t) h w c -> b t h w c", b=b), run.tokens

    def share(self, reference: Sequence[Float[Array, "b n c"]]) -> list[KeysAndValues]:
        """Keys and values of a reference's tokens for every block: once for a whole video."""
        layers = [layer for level in self.down for layer in level]
        layers += [self.mid, *(layer for level in self.up for layer in level)]
        attends = [layer.attention.attn1 for layer in layers if layer.attention is not None]
        return [
            attend.keys_and_values(tokens.astype(self.config.dtype))
            for attend, tokens in zip(attends, reference, strict=True)
        ]

    def _body(self, x: Float[Array, "bt h w c"], run: Run) -> Float[Array, "bt h w d"]:
        x = self.conv_in(x.astype(self.config.dtype))
        skips = [x]
        for level, layers in enumerate(self.down):
            for layer in layers:
                x = run.through(layer, x)
                skips.append(x)
            if level < len(self.downsamplers):
                x = self.downsamplers[level](x)
                skips.append(x)
        x = self.mid_resnet(run.through(self.mid, x), run.embedding)
        for level, layers in enumerate(self.up):
            for layer in layers:
                x = run.through(layer, jnp.concatenate([x, skips.pop()], axis=-1))
            if level < len(self.upsamplers):
                x = self.upsamplers[level](upsample(x))
        return x
