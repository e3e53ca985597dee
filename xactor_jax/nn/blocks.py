"""Blocks of the renderer's networks and of the motion encoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float

from xactor_jax.nn.attention import KeysAndValues, MultiHeadAttention
from xactor_jax.nn.embeddings import interleaved_positions
from xactor_jax.nn.layers import Conv, Linear
from xactor_jax.nn.norms import group_norm, layer_norm
from xactor_jax.sharding import constrain


class GatedFeedForward(nnx.Module):
    """GEGLU: width -> 2 x multiplier x width -> width (diffusers FeedForward)."""

    def __init__(self, width: int, multiplier: int, *, dtype=jnp.float32, rngs: nnx.Rngs):
        hidden = multiplier * width
        self.proj = Linear(width, 2 * hidden, dtype=dtype, rngs=rngs)
        self.out = Linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return self.out(value * nnx.gelu(gate, approximate=False))


class ResnetBlock(nnx.Module):
    """Two convolutions with the noise level added between them (diffusers ResnetBlock2D).

    Without an `embedding` width it knows no noise level. Sides of `kernel` are odd.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        embedding: int | None,
        groups: int,
        *,
        kernel: tuple[int, int] = (3, 3),
        epsilon: float = 1e-5,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        def conv(inside: int, outside: int, size: tuple[int, int]) -> nnx.Conv:
            padding = [(side // 2, side // 2) for side in size]
            return Conv(inside, outside, size, padding=padding, dtype=dtype, rngs=rngs)

        self.norm1 = group_norm(channels, groups, epsilon, rngs)
        self.conv1 = conv(channels, out_channels, kernel)
        self.time_emb_proj = (
            Linear(embedding, out_channels, dtype=dtype, rngs=rngs) if embedding else None
        )
        self.norm2 = group_norm(out_channels, groups, epsilon, rngs)
        self.conv2 = conv(out_channels, out_channels, kernel)
        self.shortcut = None if channels == out_channels else conv(channels, out_channels, (1, 1))

    def __call__(
        self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"] | None = None
    ) -> Float[Array, "b h w d"]:
        h = self.conv1(nnx.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            if embedding is None:
                raise ValueError("this block needs the embedding of a noise level")
            h = h + self.time_emb_proj(nnx.silu(embedding))[:, None, None]
        h = self.conv2(nnx.silu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(x))


class SpatialTransformer(nnx.Module):
    """Self-attention whose keys also hold the reference, cross-attention to the image token.

    (diffusers Transformer2DModel with one block; shared attention: x-nemo-inference
    src/models/mutual_self_attention.py)
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        groups: int,
        multiplier: int,
        image_token: int,
        *,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.norm = group_norm(channels, groups, 1e-6, rngs)
        self.proj_in = Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.norm1 = layer_norm(channels, rngs)
        self.attn1 = MultiHeadAttention(channels, heads, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(channels, rngs) if image_token else None
        self.attn2 = (
            MultiHeadAttention(channels, heads, key_width=image_token, dtype=dtype, rngs=rngs)
            if image_token
            else None
        )
        self.norm3 = layer_norm(channels, rngs)
        self.ff = GatedFeedForward(channels, multiplier, dtype=dtype, rngs=rngs)
        self.proj_out = Linear(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        image_token: Float[Array, "b k i"] | None,
        reference: Shared | None,
        reference_seen: Bool[Array, " b"] | None,
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b m c"]]:
        """Returns the block's output and its own normalised tokens, which a reference shares."""
        height = x.shape[1]
        h = self.proj_in(rearrange(self.norm(x), "b h w c -> b (h w) c"))
        tokens = self.norm1(h)
        h = h + attend_with_reference(self.attn1, tokens, reference, reference_seen)
        if self.attn2 is not None and self.norm2 is not None:
            h = h + self.attn2(self.norm2(h), image_token)
        h = h + self.ff(self.norm3(h))
        h = rearrange(self.proj_out(h), "b (h w) c -> b h w c", h=height)
        return x + h, tokens


Shared = Float[Array, "v m c"] | KeysAndValues
"""Tokens of a reference for each video, or what `MultiHeadAttention` makes of them, once."""


def attend_with_reference(
    attend: MultiHeadAttention,
    tokens: Float[Array, "b n c"],
    reference: Shared | None,
    reference_seen: Bool[Array, " b"] | None,
) -> Float[Array, "b n c"]:
    """Self-attention of frames, which also see the reference of their video."""
    if reference is None:
        return attend(tokens)
    if not isinstance(reference, tuple):
        reference = attend.keys_and_values(reference.astype(tokens.dtype))
    frames = len(tokens) // len(reference[0])
    keys, values = (repeat(part, "v m h d -> (v t) m h d", t=frames) for part in reference)
    mask = None
    if reference_seen is not None:
        own = jnp.ones(tokens.shape[:2], bool)
        shared = repeat(reference_seen, "b -> b m", m=keys.shape[1])
        mask = jnp.concatenate([own, shared], axis=1)[:, None, None]
    return attend(tokens, mask=mask, further=(keys, values))


class AttentionModule(nnx.Module):
    """The module inserted after each U-Net layer: two attentions and a feed-forward, residual.

    With `key_width` the pixels of a frame attend to that frame's motion tokens; without, each
    pixel attends to itself in the other frames of the window
    (x-nemo-inference src/models/motion_module.py).
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        groups: int,
        multiplier: int,
        *,
        key_width: int | None = None,
        max_frames: int = 32,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.temporal, self.max_frames = key_width is None, max_frames
        self.norm = group_norm(channels, groups, 1e-6, rngs)
        self.proj_in = Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.norms = nnx.List([layer_norm(channels, rngs) for _ in range(2)])
        self.attentions = nnx.List(
            [
                MultiHeadAttention(channels, heads, key_width=key_width, dtype=dtype, rngs=rngs)
                for _ in range(2)
            ]
        )
        self.ff_norm = layer_norm(channels, rngs)
        self.ff = GatedFeedForward(channels, multiplier, dtype=dtype, rngs=rngs)
        self.proj_out = Linear(
            channels, channels, kernel_init=nnx.initializers.zeros, dtype=dtype, rngs=rngs
        )

    def __call__(
        self, x: Float[Array, "b t h w c"], motion: Float[Array, "b t n d"] | None = None
    ) -> Float[Array, "b t h w c"]:
        b, t, height, width, c = x.shape
        # Group statistics are taken per frame, as in the image network.
        h = self.norm(x.reshape(b * t, height, width, c)).reshape(x.shape)
        if self.temporal:
            if t > self.max_frames:
                raise ValueError(f"a window of {t} frames is over the {self.max_frames} trained")
            h = constrain(rearrange(self.proj_in(h), "b t h w c -> (b h w) t c"), "rows")
            positions = jnp.asarray(interleaved_positions(t, c), h.dtype)
            for norm, attend in zip(self.norms, self.attentions, strict=True):
                h = h + attend(norm(h) + positions)
        else:
            h = rearrange(self.proj_in(h), "b t h w c -> (b t) (h w) c")
            if motion is None:
                raise ValueError("a motion module needs motion tokens")
            context = rearrange(motion, "b t n d -> (b t) n d").astype(h.dtype)
            for norm, attend in zip(self.norms, self.attentions, strict=True):
                h = h + attend(norm(h), context)
        h = self.proj_out(h + self.ff(self.ff_norm(h)))
        if self.temporal:
            h = rearrange(h, "(b h w) t c -> b t h w c", b=b, h=height)
        else:
            h = rearrange(h, "(b t) (h w) c -> b t h w c", t=t, h=height)
        return x + h


def upsample(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Nearest-neighbour doubling."""
    return repeat(x, "b h w c -> b (h p) (w q) c", p=2, q=2)


def resize(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b a d c"]:
    """Bilinear resize without corner alignment (torch interpolate)."""
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "bilinear", antialias=False)
