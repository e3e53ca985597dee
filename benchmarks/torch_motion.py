"""The motion transformer in torch, as generation calls it: the baseline of benchmarks/motion.py.

The same network with the same parameters under the same names, finished chunks kept as keys and
values, and both branches of the guidance in one batch. Every pass computes all that enters it, as
the published relatives do (AvatarForcing, FLOAT). Needs the extra `parity`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from xactor_jax.models.motion_transformer import MotionTransformerConfig

Past = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each block, (2, h, heads, d), before rotation."""


def rotate(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary positions of (b, n, heads, d)."""
    half = x.shape[-1] // 2
    angles = positions[:, None, None] * 10_000.0 ** (-torch.arange(half) / half)
    cosine, sine = angles.cos(), angles.sin()
    left, right = x[..., :half], x[..., half:]
    turned = torch.cat([left * cosine - right * sine, right * cosine + left * sine], dim=-1)
    return turned.to(x.dtype)


class SelfAttention(nn.Module):
    """Rotary self-attention with normalised queries and keys."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query_norm, self.key_norm = (nn.RMSNorm(width // heads, eps=1e-6) for _ in range(2))

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        query, key = self.query_norm(query), self.key_norm(key)
        keys, values = torch.cat([past[0], key], dim=1), torch.cat([past[1], value], dim=1)
        places = torch.arange(keys.shape[1])
        query, keys = rotate(query, places[past[0].shape[1] :]), rotate(keys, places)
        heads_first = (t.transpose(1, 2) for t in (query, keys, values))
        seen = F.scaled_dot_product_attention(*heads_first, attn_mask=mask)
        return self.out(seen.transpose(1, 2).flatten(2)), (key, value)


class AudioAttention(nn.Module):
    """Cross-attention to audio."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, heard: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, y in ((self.to_q, x), (self.to_k, heard), (self.to_v, heard))
        )
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.to_out(seen.transpose(1, 2).flatten(2))


class Offset(nn.Module):
    """Adds what it has learnt."""

    def __init__(self, width: int):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.offset


class Block(nn.Module):
    """Self-attention, audio attention and feed-forward, with adaLN-zero."""

    def __init__(self, c: MotionTransformerConfig):
        super().__init__()
        modulation = 6 * c.width
        self.modulation = (
            Offset(modulation) if c.shared_modulation else nn.Linear(c.width, modulation)
        )
        self.norm1, self.norm2 = (nn.LayerNorm(c.width, elementwise_affine=False) for _ in range(2))
        self.self_attention = SelfAttention(c.width, c.heads)
        self.audio_norm = nn.LayerNorm(c.width)
        self.audio_attention = AudioAttention(c.width, c.heads)
        self.audio_place = nn.Parameter(torch.zeros(c.heads, 2 * c.audio_window + 1))
        self.hidden = nn.Linear(c.width, c.feed_forward * c.width)
        self.out = nn.Linear(c.feed_forward * c.width, c.width)

    def forward(self, x, condition, mask, heard, audio_mask, place, past):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        seen, own = self.self_attention(self.norm1(x) * (1 + scale1) + shift1, mask, past)
        x = x + gate1 * seen
        bias = F.pad(self.audio_place[:, place], (1, 0))[None].masked_fill(~audio_mask, -math.inf)
        x = x + self.audio_attention(self.audio_norm(x), heard, bias)
        h = self.hidden(self.norm2(x) * (1 + scale2) + shift2)
        return x + gate2 * self.out(F.gelu(h, approximate="tanh")), own


class NoiseLevel(nn.Module):
    """Noise level -> features."""

    def __init__(self, width: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(256, width), nn.Linear(width, width)

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        angles = 1000 * level[..., None] * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        features = torch.cat([angles.cos(), angles.sin()], dim=-1).to(level.dtype)
        return self.linear_2(F.silu(self.linear_1(features)))


class MotionTransformer(nn.Module):
    """A guided pass over a chunk after finished ones."""

    def __init__(self, c: MotionTransformerConfig):
        super().__init__()
        self.config = c
        self.latent_in, self.reference_in = (nn.Linear(c.latent, c.width) for _ in range(2))
        self.audio_in, self.audio_norm = nn.Linear(c.audio, c.width), nn.LayerNorm(c.width)
        self.no_reference, self.no_audio = (nn.Parameter(torch.zeros(c.width)) for _ in range(2))
        if c.direction:
            self.direction_in = nn.Linear(c.direction, c.width, bias=False)
        self.noise_level = NoiseLevel(c.width)
        if c.shared_modulation:
            self.block_modulation = nn.Linear(c.width, 6 * c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.norm_out = nn.LayerNorm(c.width, elementwise_affine=False)
        self.modulation_out = nn.Linear(c.width, 2 * c.width)
        self.latent_out = nn.Linear(c.width, c.latent)

    def forward(
        self, z: torch.Tensor, level: float, audio: torch.Tensor, past: Past, known: torch.Tensor
    ) -> tuple[torch.Tensor, Past]:
        """What both branches say, with and without the audio; and their keys and values.

        z is (1, n, d), audio (1, n + 2 windows, f); known says which of the past's tokens exist.
        """
        c, n = self.config, z.shape[1]
        x = self.latent_in(torch.cat([z, z])) + self.reference_in(z.new_zeros(2, 1, c.latent))
        if c.direction:
            x = x + self.direction_in(z.new_zeros(2, n, c.direction))
        condition = F.silu(self.noise_level(z.new_full((2, n), level)))
        shared = self.block_modulation(condition) if c.shared_modulation else condition
        heard = F.silu(self.audio_norm(self.audio_in(torch.cat([audio, audio]))))
        heard = torch.cat([self.no_audio.expand(2, 1, -1), heard], dim=1)
        place = torch.arange(audio.shape[1]) - torch.arange(n)[:, None]
        near = (place >= 0) & (place <= 2 * c.audio_window)
        audio_mask = torch.zeros(2, 1, n, 1 + audio.shape[1], dtype=torch.bool)
        audio_mask[0, ..., 1:], audio_mask[1, ..., 0] = near, True
        place = place.clamp(0, 2 * c.audio_window)
        mask = torch.cat([known, torch.ones(n, dtype=torch.bool)]).expand(n, -1)
        made = []
        for block, before in zip(self.blocks, past, strict=True):
            x, own = block(x, shared, mask, heard, audio_mask, place, before)
            made.append(own)
        shift, scale = self.modulation_out(condition).chunk(2, dim=-1)
        return self.latent_out(self.norm_out(x) * (1 + scale) + shift), made


@dataclasses.dataclass
class Performer:
    """Acts chunk after chunk: Euler's method on the flow, then a pass that keeps the chunk."""

    network: MotionTransformer
    steps: int
    guidance: float
    history: int  # finished frames that are kept
    history_level: float

    @property
    def dtype(self) -> torch.dtype:
        """Of what it computes with."""
        return self.network.no_audio.dtype

    def empty(self) -> tuple[Past, torch.Tensor]:
        """The past before the first chunk, and which of its tokens exist."""
        c = self.network.config
        zeros = torch.zeros(2, self.history, c.heads, c.width // c.heads, dtype=self.dtype)
        return [(zeros, zeros)] * c.depth, torch.zeros(self.history, dtype=torch.bool)

    @torch.inference_mode()
    def __call__(
        self, before: tuple[Past, torch.Tensor], audio: torch.Tensor, z: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Past, torch.Tensor]]:
        """(the past, sound, noise) -> (the chunk, the past with it)."""
        past, known = before
        for step in range(self.steps):
            output, _ = self.network(z, 1 - step / self.steps, audio, past, known)
            z = z - (output[1:] + self.guidance * (output[:1] - output[1:])) / self.steps
        h, n = self.history_level, z.shape[1]
        _, made = self.network((1 - h) * z, h, audio, past, known)
        slid = [
            tuple(torch.cat([old[:, n:], new], dim=1) for old, new in zip(*pair, strict=True))
            for pair in zip(past, made, strict=True)
        ]
        return z, (slid, torch.cat([known[n:], torch.ones(n, dtype=torch.bool)]))


def with_weights(config: MotionTransformerConfig, weights: Mapping[str, Any]) -> MotionTransformer:
    """The network with the parameters of ours. Raises KeyError or RuntimeError if they differ."""
    found: dict[str, torch.Tensor] = {}

    def read(tree: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                read(value, (*path, str(name)))
            else:
                array = np.array(value)
                array = array.T if name == "kernel" else array
                last = {"kernel": "weight", "scale": "weight"}.get(name, name)
                found[".".join((*path, last))] = torch.from_numpy(np.ascontiguousarray(array))

    read(weights, ())
    network = MotionTransformer(config)
    network.load_state_dict(found)
    return network.eval()
