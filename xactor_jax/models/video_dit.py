"""A diffusion transformer in the U-Net's place: the same conditions, on patches of the latents.

A block is DiT's (Peebles and Xie, arXiv 2212.09748), its norms and gates set by the noise level.
Between self-attention and feed-forward it attends to the conditions, unmodulated, as PixArt's
(arXiv 2310.00426) does; its self-attention shares the reference network's tokens as the U-Net's
does; and to attend over frames is added in the same place (Latte, arXiv 2401.03048).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float

from xactor_jax.nn.attention import KeysAndValues, MultiHeadAttention
from xactor_jax.nn.blocks import GatedFeedForward, Shared, attend_with_reference
from xactor_jax.nn.embeddings import NoiseLevelEmbedding, interleaved_positions, sincos_grid
from xactor_jax.nn.layers import Linear
from xactor_jax.nn.norms import layer_norm, modulate
from xactor_jax.nn.patches import from_patches, to_patches
from xactor_jax.nn.repeated import repeated
from xactor_jax.sharding import constrain

_FREQUENCIES = 256  # of the noise level


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes; the defaults are our choice: DiT-XL/2's, 898 M parameters, 1047 M if temporal."""

    kind: Literal["dit"] = "dit"  # tells a weights file's networks apart
    in_channels: int = 4
    out_channels: int | None = 4  # None: a reference network, which only returns its tokens
    patch: int = 2
    width: int = 1152
    depth: int = 28
    heads: int = 16
    feed_forward: int = 4
    image_token: int = 0  # width of the CLIP token; 0: none
    motion_token: int = 16  # width of a motion token; 0: no motion attention
    pooled_motion: int = 0  # width of a motion latent added to the noise embedding; 0: none
    temporal: bool = False
    max_frames: int = 32
    dtype: str = "float32"
    scan: bool = False  # compile one block for all; see nn/repeated.py
    rematerialise: bool = False  # compute blocks again in the backward pass, to save memory

    def __post_init__(self):
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width}: must divide by {self.heads} heads, and by 4")


class DiT(nnx.Module):
    """Transformer over the patches of a window's frames."""

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        linear = functools.partial(Linear, dtype=jnp.dtype(c.dtype), rngs=rngs)
        zero = functools.partial(linear, kernel_init=nnx.initializers.zeros)
        self.noise_level = NoiseLevelEmbedding(
            _FREQUENCIES, c.width, dtype=jnp.dtype(c.dtype), rngs=rngs
        )
        self.pooled_motion = linear(c.pooled_motion, c.width) if c.pooled_motion else None
        self.patch_in = linear(c.patch**2 * c.in_channels, c.width)
        self.blocks = nnx.List([Block(c, rngs=rngs) for _ in range(c.depth)])
        outputs = c.patch**2 * (c.out_channels or 0)
        self.norm_out = layer_norm(c.width, rngs, affine=False) if outputs else None
        self.modulation_out = zero(c.width, 2 * c.width) if outputs else None
        self.patch_out = zero(c.width, outputs) if outputs else None

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
        """One denoising pass; arguments and results are those of `UNet.__call__`.

        `reference` and the second result have one entry a block.
        """
        b, t, height = latents.shape[:3]
        of_frame = functools.partial(repeat, pattern="b ... -> (b t) ...", t=t)
        x = self._embed(rearrange(latents, "b t h w c -> (b t) h w c"))
        condition = self._condition(noise_level, pooled_motion, t)
        image_token = None if image_token is None else of_frame(image_token)
        motion = None if motion is None else rearrange(motion, "b t n d -> (b t) n d")
        seen = None if reference_seen is None else of_frame(reference_seen)
        x, made = repeated(
            lambda block, x, shared: block(
                constrain(x, "rows"), condition, image_token, motion, shared, seen, t
            ),
            self.blocks,
            x,
            reference,
            scan=self.config.scan,
            rematerialise=self.config.rematerialise,
        )
        if self.norm_out is None or self.modulation_out is None or self.patch_out is None:
            return None, made
        shift, scale = jnp.split(self.modulation_out(condition), 2, axis=-1)
        x = self.patch_out(modulate(self.norm_out(x), shift, scale))
        patches = rearrange(x, "b (h w) c -> b h w c", h=height // self.config.patch)
        output = from_patches(patches, self.config.patch)
        return rearrange(output, "(b t) h w c -> b t h w c", b=b), made

    def share(self, reference: Sequence[Float[Array, "b n c"]]) -> list[KeysAndValues]:
        """Keys and values of a reference's tokens for every block: once for a whole video."""
        return [
            block.attention.keys_and_values(tokens.astype(self.config.dtype))
            for block, tokens in zip(self.blocks, reference, strict=True)
        ]

    def _embed(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        """Patches as tokens that know their place."""
        c = self.config
        x = self.patch_in(to_patches(latents, c.patch))
        h, w = x.shape[1:3]
        places = sincos_grid(max(h, w), c.width)[:h, :w]
        return rearrange(x + jnp.asarray(places, x.dtype), "b h w d -> b (h w) d")

    def _condition(
        self, noise_level: Float[Array, " b"], pooled: Float[Array, "b t p"] | None, frames: int
    ) -> Float[Array, "bt 1 d"]:
        """What modulates all tokens of a frame."""
        condition = repeat(self.noise_level(noise_level), "b d -> b t d", t=frames)
        if self.pooled_motion is not None and pooled is not None:
            condition = condition + self.pooled_motion(pooled)
        return nnx.silu(rearrange(condition, "b t d -> (b t) 1 d"))


class Block(nnx.Module):
    """Self-attention and feed-forward with adaLN-zero; between them, what is attended besides."""

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype = jnp.dtype(c.dtype)
        self.modulation = Linear(
            c.width, 6 * c.width, kernel_init=nnx.initializers.zeros, dtype=dtype, rngs=rngs
        )
        self.norm1 = layer_norm(c.width, rngs, affine=False)
        self.attention = MultiHeadAttention(c.width, c.heads, dtype=dtype, rngs=rngs)
        self.image = AddedAttention(c, c.image_token, rngs=rngs) if c.image_token else None
        self.motion = AddedAttention(c, c.motion_token, rngs=rngs) if c.motion_token else None
        self.temporal = AddedAttention(c, c.width, rngs=rngs) if c.temporal else None
        self.norm2 = layer_norm(c.width, rngs, affine=False)
        self.ff = GatedFeedForward(c.width, c.feed_forward, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "bt n d"],
        condition: Float[Array, "bt 1 d"],
        image_token: Float[Array, "bt k i"] | None,
        motion: Float[Array, "bt m e"] | None,
        reference: Shared | None,
        reference_seen: Bool[Array, " bt"] | None,
        frames: int,
    ) -> tuple[Float[Array, "bt n d"], Float[Array, "bt n d"]]:
        """Returns the block's output and its own normalised tokens, which a reference shares."""
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(
            self.modulation(condition), 6, axis=-1
        )
        tokens = modulate(self.norm1(x), shift1, scale1)
        shared = attend_with_reference(self.attention, tokens, reference, reference_seen)
        x = x + gate1 * shared
        for attend, conditions in ((self.image, image_token), (self.motion, motion)):
            if attend is not None:
                if conditions is None:
                    raise ValueError("the config has image or motion tokens; the call lacks them")
                x = x + attend(x, conditions)
        if self.temporal is not None:
            x = x + self._over_frames(self.temporal, x, frames)
        return x + gate2 * self.ff(modulate(self.norm2(x), shift2, scale2)), tokens

    def _over_frames(
        self, attend: AddedAttention, x: Float[Array, "bt n d"], frames: int
    ) -> Float[Array, "bt n d"]:
        """Each patch attends to itself in the other frames of the window."""
        if frames > self.config.max_frames:
            raise ValueError(
                f"a window of {frames} frames is over the {self.config.max_frames} trained"
            )
        n = x.shape[1]
        x = constrain(rearrange(x, "(b t) n d -> (b n) t d", t=frames), "rows")
        h = attend(x, positions=jnp.asarray(interleaved_positions(frames, x.shape[-1]), x.dtype))
        return rearrange(h, "(b n) t d -> (b t) n d", n=n)


class AddedAttention(nnx.Module):
    """What attention to conditions, or to each other, adds to the tokens: at first nothing."""

    def __init__(self, config: DiTConfig, key_width: int, *, rngs: nnx.Rngs):
        self.norm = layer_norm(config.width, rngs)
        self.attention = MultiHeadAttention(
            config.width,
            config.heads,
            key_width=key_width,
            output_init=nnx.initializers.zeros,
            dtype=jnp.dtype(config.dtype),
            rngs=rngs,
        )

    def __call__(
        self,
        x: Float[Array, "b n d"],
        context: Float[Array, "b k c"] | None = None,
        positions: Float[Array, "n d"] | float = 0.0,
    ) -> Float[Array, "b n d"]:
        return self.attention(self.norm(x) + positions, context)
