"""The motion transformer: motion latents from speech, denoised chunk by chunk.

Every frame is a token with a noise level of its own. Tokens see each other through a mask that the
caller gives (full inside a chunk, causal across chunks: X-Actor's project page) and hear the audio
frames near their own (windowed cross-attention, likewise). Sizes are our defaults; the nearest
published relatives are AvatarForcing and FLOAT (8 layers of 1024).
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from xactor_jax.nn.attention import MultiHeadAttention, attention
from xactor_jax.nn.embeddings import NoiseLevelEmbedding, rotate
from xactor_jax.nn.layers import Linear
from xactor_jax.nn.norms import layer_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionTransformerConfig:
    """Sizes and reach; the defaults are the full size, about 199 M parameters."""

    latent: int = 512
    audio: int = 9216
    width: int = 1024
    depth: int = 8
    heads: int = 8
    feed_forward: int = 4
    chunk: int = 10  # frames denoised together
    context: int = 250  # frames in training, and at most seen when generating
    audio_window: int = 2  # frames heard before and after each frame
    relative: bool = False  # latents are differences from the portrait's own latent
    dtype: str = "float32"


class MotionTransformer(nnx.Module):
    """Noisy motion latents + audio + the portrait's own latent -> the network's output."""

    def __init__(self, config: MotionTransformerConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype = jnp.dtype(c.dtype)

        def linear(inside: int, outside: int, **kind) -> nnx.Linear:
            return Linear(inside, outside, dtype=dtype, rngs=rngs, **kind)

        self.latent_in = linear(c.latent, c.width)
        self.reference_in = linear(c.latent, c.width)
        self.no_reference = nnx.Param(jnp.zeros(c.width))
        self.audio_in, self.audio_norm = linear(c.audio, c.width), layer_norm(c.width, rngs)
        self.no_audio = nnx.Param(jnp.zeros(c.width))
        self.noise_level = NoiseLevelEmbedding(256, c.width, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(c, rngs=rngs) for _ in range(c.depth)])
        self.norm_out = layer_norm(c.width, rngs, affine=False)
        self.modulation_out = linear(c.width, 2 * c.width, kernel_init=nnx.initializers.zeros)
        self.latent_out = linear(c.width, c.latent, kernel_init=nnx.initializers.zeros)

    def __call__(
        self,
        z: Float[Array, "b n d"],
        noise_level: Float[Array, "b n"],
        positions: Int[Array, "b n"],
        mask: Bool[Array, "b n n"],
        audio: Float[Array, "b a f"],
        audio_heard: Bool[Array, "b n a"],
        reference: Float[Array, "b d"],
        reference_seen: Bool[Array, " b"],
    ) -> Float[Array, "b n d"]:
        """One pass.

        Args:
          z: standardised motion latents, each at its noise level.
          noise_level: in [0, 1].
          positions: frame numbers of the tokens within the context (rotary position).
          mask: which tokens each token sees.
          audio: audio features, one a frame, from one audio window before the first position on.
          audio_heard: which audio frames each token hears; one that hears none hears a learned
            silence, which is also what training drops audio to.
          reference, reference_seen: the portrait's own latent, or False to do without.
        """
        c = self.config
        still = jnp.where(
            reference_seen[:, None],
            self.reference_in(reference.astype(c.dtype)),
            self.no_reference[...],
        )
        x = self.latent_in(z.astype(c.dtype)) + still[:, None]
        condition = nnx.silu(self.noise_level(noise_level))
        heard = nnx.silu(self.audio_norm(self.audio_in(audio.astype(c.dtype))))
        nothing = jnp.broadcast_to(self.no_audio[...], (len(z), 1, c.width)).astype(heard.dtype)
        heard = jnp.concatenate([nothing, heard], axis=1)
        silence = ~jnp.any(audio_heard, axis=-1, keepdims=True)
        audio_mask = jnp.concatenate([silence, audio_heard], axis=-1)
        # Where in its window a token finds each audio frame.
        frame = positions - jnp.min(positions, axis=1, keepdims=True)
        place = jnp.arange(audio.shape[1]) - frame[:, :, None]
        place = jnp.clip(place, 0, 2 * c.audio_window)
        for block in self.blocks:
            x = block(x, condition, positions, mask, heard, audio_mask, place)
        shift, scale = jnp.split(self.modulation_out(condition), 2, axis=-1)
        return self.latent_out(modulate(self.norm_out(x), shift, scale)).astype(jnp.float32)


class Block(nnx.Module):
    """Self-attention, audio attention and feed-forward, modulated by each token's noise level.

    adaLN-zero: Peebles and Xie, arXiv 2212.09748.
    """

    def __init__(self, config: MotionTransformerConfig, *, rngs: nnx.Rngs):
        c, dtype = config, jnp.dtype(config.dtype)

        def linear(inside: int, outside: int, **kind) -> nnx.Linear:
            return Linear(inside, outside, dtype=dtype, rngs=rngs, **kind)

        self.modulation = linear(c.width, 6 * c.width, kernel_init=nnx.initializers.zeros)
        self.norm1 = layer_norm(c.width, rngs, affine=False)
        self.self_attention = RotaryAttention(c, rngs=rngs)
        self.audio_norm = layer_norm(c.width, rngs)
        self.audio_attention = MultiHeadAttention(c.width, c.heads, dtype=dtype, rngs=rngs)
        self.audio_place = nnx.Param(spread_over_window(c.heads, c.audio_window))
        self.norm2 = layer_norm(c.width, rngs, affine=False)
        self.hidden = linear(c.width, c.feed_forward * c.width)
        self.out = linear(c.feed_forward * c.width, c.width)

    def __call__(self, x, condition, positions, mask, heard, audio_mask, place):
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(
            self.modulation(condition), 6, axis=-1
        )
        h = modulate(self.norm1(x), shift1, scale1)
        x = x + gate1 * self.self_attention(h, positions, mask)
        bias = rearrange(self.audio_place[...][:, place], "heads b n a -> b heads n a")
        bias = jnp.pad(bias, [(0, 0), (0, 0), (0, 0), (1, 0)])  # silence has no place
        x = x + self.audio_attention(
            self.audio_norm(x), heard, audio_mask[:, None], bias.astype(x.dtype)
        )
        h = modulate(self.norm2(x), shift2, scale2)
        return x + gate2 * self.out(nnx.gelu(self.hidden(h)))


def spread_over_window(heads: int, reach: int) -> Float[Array, "heads window"]:
    """First biases of audio attention, by place in the window: each head begins around its own.

    Audio frames have no positions; without these a token could not tell its own from the others.
    Learned biases by distance are T5's (Raffel et al., arXiv 1910.10683); this start is ours.
    """
    middle = jnp.linspace(0, 2 * reach, heads) if heads > 1 else jnp.full(1, float(reach))
    return -jnp.abs(jnp.arange(2 * reach + 1) - middle[:, None])


class RotaryAttention(nnx.Module):
    """Self-attention with rotary positions and normalised queries and keys."""

    def __init__(self, config: MotionTransformerConfig, *, rngs: nnx.Rngs):
        c, dtype = config, jnp.dtype(config.dtype)
        self.heads = c.heads
        self.qkv = Linear(c.width, 3 * c.width, dtype=dtype, rngs=rngs)
        self.query_norm = nnx.RMSNorm(c.width // c.heads, rngs=rngs)
        self.key_norm = nnx.RMSNorm(c.width // c.heads, rngs=rngs)
        self.out = Linear(c.width, c.width, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n d"], positions: Int[Array, "b n"], mask: Bool[Array, "b n n"]
    ) -> Float[Array, "b n d"]:
        query, key, value = rearrange(
            self.qkv(x), "b n (three heads d) -> three b n heads d", three=3, heads=self.heads
        )
        query = rotate(self.query_norm(query), positions)
        key = rotate(self.key_norm(key), positions)
        return self.out(
            rearrange(attention(query, key, value, mask[:, None]), "b n heads d -> b n (heads d)")
        )


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """Scale and shift a normalised token."""
    return x * (1 + scale) + shift
