"""The motion transformer: motion latents from speech, denoised chunk by chunk.

Every frame is a token with a noise level of its own. Tokens see each other through a mask that the
caller gives (full inside a chunk, causal across chunks: X-Actor's project page) and hear the audio
frames near their own (windowed cross-attention, likewise). Sizes are our defaults; the nearest
published relatives are AvatarForcing and FLOAT (8 layers of 1024).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from xactor_jax.models.motion_cache import Heard, KeyValueCache, Modulation, Remembered, Sound
from xactor_jax.nn.attention import KeysAndValues, MultiHeadAttention, attention, spread_over_window
from xactor_jax.nn.embeddings import NoiseLevelEmbedding, rotate
from xactor_jax.nn.layers import Linear, Offset
from xactor_jax.nn.norms import layer_norm, modulate
from xactor_jax.nn.repeated import repeated
from xactor_jax.sharding import constrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionTransformerConfig:
    """Sizes and reach; by default full: 199 M parameters, or 155 M with shared modulation."""

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
    shared_modulation: bool = False  # by one layer for all blocks: a quarter fewer parameters
    direction: int = 0  # numbers a frame that tell the performer what to do; 0: cannot be told
    dtype: str = "float32"
    scan: bool = False  # compile one block for all; see nn/repeated.py
    rematerialise: bool = False  # compute blocks again in the backward pass, to save memory

    @property
    def full_sequence(self) -> bool:
        """Whether one chunk fills the context: one noise level, attention both ways."""
        return self.chunk == self.context


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
        # Without a bias: a frame of zeros tells nothing.
        self.direction_in = (
            linear(c.direction, c.width, use_bias=False, kernel_init=nnx.initializers.zeros)
            if c.direction
            else None
        )
        self.audio_in, self.audio_norm = linear(c.audio, c.width), layer_norm(c.width, rngs)
        self.no_audio = nnx.Param(jnp.zeros(c.width))
        self.noise_level = NoiseLevelEmbedding(256, c.width, dtype=dtype, rngs=rngs)
        self.block_modulation = (
            linear(c.width, 6 * c.width, kernel_init=nnx.initializers.zeros)
            if c.shared_modulation
            else None
        )
        self.blocks = nnx.List([Block(c, rngs=rngs) for _ in range(c.depth)])
        self.norm_out = layer_norm(c.width, rngs, affine=False)
        self.modulation_out = linear(c.width, 2 * c.width, kernel_init=nnx.initializers.zeros)
        self.latent_out = linear(c.width, c.latent, kernel_init=nnx.initializers.zeros)

    def __call__(
        self,
        z: Float[Array, "b n d"],
        noise_level: Float[Array, "#b m"] | Modulation,
        positions: Int[Array, "#b n"] | Int[np.ndarray, "#b n"],
        mask: Bool[Array, "#b n k"] | Bool[np.ndarray, "#b n k"],
        audio: Float[Array, "h a f"] | Heard,
        audio_heard: Bool[Array, "h n window"],
        reference: Float[Array, "b d"],
        reference_seen: Bool[Array, " b"],
        direction: Float[Array, "b n w"] | None = None,
        past: KeyValueCache | Remembered | None = None,
    ) -> Float[Array, "b n d"]:
        """One pass.

        Args:
          z: standardised motion latents, each at its noise level; of the frames that the audio is
            around, once or several times over, one copy after the other.
          noise_level: in [0, 1], each that of n / m tokens, such as a chunk's; or what `modulation`
            made of it.
          positions: frame numbers of the tokens within the context (rotary position).
          mask: which tokens each token sees: those of `past`, then those of `z`.
          audio: audio features, one a frame, from one audio window before the first frame to one
            after the last; or what `hear` made of them. Of the batch's first h rows: the others
            hear nothing, which costs less than to be told so in `audio_heard`.
          audio_heard: which frames of its audio window each token hears; one that hears none hears
            a learned silence, which is also what training drops audio to.
          reference, reference_seen: the portrait's own latent, or False to do without.
          direction: what the performer is told (data/direction.py); zeros, or None, tell nothing.
          past: h finished tokens, at positions 0 to h - 1; or what `turned` made of them.
        """
        x, modulation, _ = self._through_blocks(
            z,
            noise_level,
            positions,
            mask,
            audio,
            audio_heard,
            reference,
            reference_seen,
            direction,
            past,
        )
        shift, scale = jnp.split(modulation, 2, axis=-1)
        output = self.latent_out(modulate(self.norm_out(x), shift, scale))
        return output.astype(jnp.promote_types(output.dtype, jnp.float32))

    def keys_and_values(self, *arguments: Any) -> KeyValueCache:
        """Keys and values of the tokens `z` alone; the arguments are those of a pass."""
        keys, values = zip(*self._through_blocks(*arguments)[2], strict=True)
        return KeyValueCache(jnp.stack(keys), jnp.stack(values), jnp.ones(keys[0].shape[1], bool))

    def hear(self, audio: Float[Array, "b a f"]) -> Heard:
        """For passes with the same sound."""
        heard = self._heard(audio)
        return Heard([block.hear(heard) for block in self.blocks])

    def modulation(self, noise_level: Float[Array, "*b n"]) -> Modulation:
        """For passes at the same noise levels."""
        condition = nnx.silu(self.noise_level(noise_level))
        shared = self._of_all_blocks(condition)
        return Modulation(
            [block.modulation(shared) for block in self.blocks], self.modulation_out(condition)
        )

    def _of_all_blocks(self, condition: Float[Array, "*b n w"]) -> Float[Array, "*b n d"]:
        """What the blocks make their modulation of."""
        return condition if self.block_modulation is None else self.block_modulation(condition)

    def _heard(self, audio: Float[Array, "b a f"]) -> Float[Array, "b 1+a w"]:
        """Features of the silence that training drops audio to, then those of the audio."""
        c = self.config
        heard = nnx.silu(self.audio_norm(self.audio_in(audio.astype(c.dtype))))
        nothing = jnp.broadcast_to(self.no_audio[...], (len(audio), 1, c.width))
        return jnp.concatenate([nothing.astype(heard.dtype), heard], axis=1)

    def _through_blocks(
        self,
        z,
        noise_level,
        positions,
        mask,
        audio,
        audio_heard,
        reference,
        reference_seen,
        direction=None,
        past=None,
    ) -> tuple[Array, Array, list[tuple[Array, Array]]]:
        """Features of the tokens, what modulates the last, and each block's keys and values."""
        c = self.config
        still = jnp.where(
            reference_seen[:, None],
            self.reference_in(reference.astype(c.dtype)),
            self.no_reference[...].astype(c.dtype),
        )
        x = self.latent_in(z.astype(c.dtype)) + still[:, None]
        if self.direction_in is not None and direction is not None:
            x = x + self.direction_in(direction.astype(c.dtype))
        if isinstance(past, KeyValueCache):
            past = past.turned()
        none, ready = [None] * c.depth, isinstance(noise_level, Modulation)
        condition: Any = None if ready else nnx.silu(self.noise_level(noise_level))
        shared: Any = None if ready else self._of_all_blocks(condition)
        heard: Any = None if isinstance(audio, Heard) else self._heard(audio)

        def through(block: Block, x: Array, given: Any) -> tuple[Array, Any]:
            modulation, sound, before = given
            if modulation is None:
                modulation = block.modulation(shared)
            if sound is None:
                sound = block.hear(heard)
            x = constrain(x, "batch", "frames")
            return block(x, modulation, positions, mask, sound, audio_heard, before)

        x, made = repeated(
            through,
            self.blocks,
            x,
            [
                *zip(
                    noise_level.blocks if ready else none,
                    audio.blocks if heard is None else none,
                    none if past is None else past.keys_and_values,
                    strict=True,
                )
            ],
            scan=c.scan,
            rematerialise=c.rematerialise,
        )
        modulation = noise_level.output if ready else self.modulation_out(condition)
        return x, of_tokens(modulation, x.shape[1]), made


def of_tokens(modulation: Float[Array, "#b m d"], tokens: int) -> Float[Array, "#b {tokens} d"]:
    """What each of m noise levels does, for all of its tokens."""
    return jnp.repeat(modulation, tokens // modulation.shape[1], axis=1)


class Block(nnx.Module):
    """Self-attention, audio attention and feed-forward, modulated by each token's noise level.

    adaLN-zero: Peebles and Xie, arXiv 2212.09748; one layer for all blocks, to whose output each
    adds what it learns: adaLN-single of PixArt-α, arXiv 2310.00426.
    """

    def __init__(self, config: MotionTransformerConfig, *, rngs: nnx.Rngs):
        c, dtype = config, jnp.dtype(config.dtype)

        def linear(inside: int, outside: int, **kind) -> nnx.Linear:
            return Linear(inside, outside, dtype=dtype, rngs=rngs, **kind)

        self.modulation = (
            Offset(6 * c.width)
            if c.shared_modulation
            else linear(c.width, 6 * c.width, kernel_init=nnx.initializers.zeros)
        )
        self.norm1 = layer_norm(c.width, rngs, affine=False)
        self.self_attention = RotaryAttention(c, rngs=rngs)
        self.audio_norm = layer_norm(c.width, rngs)
        self.audio_attention = MultiHeadAttention(c.width, c.heads, dtype=dtype, rngs=rngs)
        self.audio_place = nnx.Param(spread_over_window(c.heads, c.audio_window))
        self.norm2 = layer_norm(c.width, rngs, affine=False)
        self.hidden = linear(c.width, c.feed_forward * c.width)
        self.out = linear(c.feed_forward * c.width, c.width)

    def hear(self, heard: Float[Array, "b 1+a w"]) -> Sound:
        """Keys and values of a sound, and what its first, the silence, says alone."""
        keys_and_values = self.audio_attention.keys_and_values(heard)
        return keys_and_values, self.audio_attention.see_one(keys_and_values[1][:1, :1])

    def __call__(self, x, modulation, positions, mask, sound, audio_heard, past):
        """The tokens' new features, and their keys and values in self-attention.

        modulation, sound: what this block makes of levels and audio.
        """
        modulation = of_tokens(modulation, x.shape[1])
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, axis=-1)
        h = modulate(self.norm1(x), shift1, scale1)
        seen, own = self.self_attention(h, positions, mask, past)
        x = x + gate1 * seen
        x = x + self._said(x, sound, audio_heard)
        h = modulate(self.norm2(x), shift2, scale2)
        return x + gate2 * self.out(nnx.gelu(self.hidden(h))), own

    def _said(self, x, sound, audio_heard) -> Float[Array, "b n w"]:
        (keys_and_values, silence), hearing = sound, len(audio_heard)
        said = self.audio_attention.see_windows(
            self.audio_norm(x[:hearing]), keys_and_values, audio_heard, self.audio_place[...]
        )
        if hearing == len(x):
            return said
        return jnp.concatenate([said, jnp.broadcast_to(silence, x[hearing:].shape)])


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
        self,
        x: Float[Array, "b n d"],
        positions: Int[Array, "#b n"] | Int[np.ndarray, "#b n"],
        mask: Bool[Array, "#b n k"],
        past: KeysAndValues | None = None,
    ) -> tuple[Float[Array, "b n d"], KeysAndValues]:
        """What the tokens see, and their own keys and values, each (b, n, heads, d), not rotated.

        past: keys and values of earlier tokens, one block's of `Remembered`.
        """
        query, key, value = rearrange(
            self.qkv(x), "b n (three heads d) -> three b n heads d", three=3, heads=self.heads
        )
        # The norms' weights are fp32 whatever the features are.
        query = self.query_norm(query).astype(value.dtype)
        key = self.key_norm(key).astype(value.dtype)
        turned = rotate(query, positions), rotate(key, positions)
        seen = attention(*turned, value, mask[:, None], earlier=past)
        return self.out(rearrange(seen, "b n heads d -> b n (heads d)")), (key, value)
