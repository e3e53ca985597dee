"""The published networks in torch, as its users have them: the baselines of benchmarks/networks.py.

From diffusers and transformers where they have them; the rest of X-NeMo is written around those, in
the shapes of bytedance/x-nemo-inference src/models. Needs the extra `parity`.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.nn import functional as F

HEADS = 8
Run = Callable[[], torch.Tensor]


def unet(channels: tuple[int, ...], image_token: int) -> diffusers.UNet2DConditionModel:
    """Stable Diffusion's U-Net; what diffusers calls the heads' width is their number."""
    return diffusers.UNet2DConditionModel(
        block_out_channels=channels, cross_attention_dim=image_token, attention_head_dim=HEADS
    )


class AddedModule(nn.Module):
    """What follows every layer: two attentions and a feed-forward (src/models/motion_module.py)."""

    def __init__(self, channels: int, motion_token: int | None):
        super().__init__()
        self.temporal = motion_token is None
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in, self.proj_out = (nn.Linear(channels, channels) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.attentions = nn.ModuleList(
            Attention(channels, motion_token, heads=HEADS, dim_head=channels // HEADS)
            for _ in range(2)
        )
        self.ff_norm, self.ff = nn.LayerNorm(channels), FeedForward(channels)

    def forward(self, x: torch.Tensor, given: types.SimpleNamespace) -> torch.Tensor:
        bt, c, height, width = x.shape
        h = self.proj_in(self.norm(x).permute(0, 2, 3, 1).reshape(bt, -1, c))
        motion = None if self.temporal else given.motion
        if self.temporal:
            h = (
                h.view(-1, given.frames, height * width, c)
                .transpose(1, 2)
                .reshape(-1, given.frames, c)
            )
            h = h + given.positions[:, :, :c]
        for norm, attend in zip(self.norms, self.attentions, strict=True):
            h = h + attend(norm(h), motion)
        h = self.proj_out(h + self.ff(self.ff_norm(h)))
        if self.temporal:
            h = h.view(-1, height * width, given.frames, c).transpose(1, 2).reshape(bt, -1, c)
        return x + h.view(bt, height, width, c).permute(0, 3, 1, 2)


class WithModules(nn.Module):
    """A layer of the U-Net and the two modules that X-NeMo adds to it."""

    def __init__(self, layer: nn.Module, channels: int, given: types.SimpleNamespace):
        super().__init__()
        self.layer, self.given = layer, given
        self.added = nn.ModuleList([AddedModule(channels, 16), AddedModule(channels, None)])

    def forward(self, *arguments: Any, **named: Any) -> Any:
        found = self.layer(*arguments, **named)
        x = found[0] if isinstance(found, tuple) else found
        for module in self.added:
            x = module(x, self.given)
        return (x,) if isinstance(found, tuple) else x


class SharedAttention:
    """Self-attention that also sees the reference (src/models/mutual_self_attention.py)."""

    def __init__(self, given: types.SimpleNamespace, index: int):
        self.given, self.index = given, index

    def __call__(self, attn: Attention, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        def heads(tokens: torch.Tensor) -> torch.Tensor:
            return tokens.unflatten(-1, (HEADS, -1)).transpose(1, 2)

        seen = [
            torch.cat([heads(own), shared.expand(len(x), -1, -1, -1)], dim=2)
            for own, shared in zip(
                (attn.to_k(x), attn.to_v(x)), self.given.reference[self.index], strict=True
            )
        ]
        h = F.scaled_dot_product_attention(heads(attn.to_q(x)), *seen)
        return attn.to_out[0](h.transpose(1, 2).flatten(2))


def denoiser(
    channels: tuple[int, ...], image_token: int, frames: int, side: int
) -> tuple[nn.Module, Run]:
    """The denoiser with motion and temporal modules; the reference's keys and values are given."""
    network, given = unet(channels, image_token), types.SimpleNamespace(frames=frames)
    for block in (*network.down_blocks, network.mid_block, *network.up_blocks):
        layers = getattr(block, "attentions", None) or block.resnets
        for n, layer in enumerate(layers):
            wide = (block.resnets[n] if layers is not block.resnets else layer).out_channels
            layers[n] = WithModules(layer, wide, given)
    attends = [m.attn1 for m in network.modules() if hasattr(m, "attn1")]
    sides = _sides(network, side)
    given.motion = torch.randn(frames, 32, 16)
    given.positions = torch.randn(1, frames, max(channels))
    given.reference = []
    for index, (attend, edge) in enumerate(zip(attends, sides, strict=True)):
        shape = (1, HEADS, edge**2, attend.to_k.out_features // HEADS)
        given.reference.append((torch.randn(shape), torch.randn(shape)))
        attend.set_processor(SharedAttention(given, index))
    latents, token = torch.randn(frames, 4, side, side), torch.randn(frames, 1, image_token)
    return network, lambda: network(latents, 500, token).sample


def _sides(network: nn.Module, side: int) -> list[int]:
    """Edge of the feature map of each attention block, in the order of `modules()`."""
    of_level = [side // 2**n for n in range(len(network.down_blocks))]
    found = []
    for blocks, edges in (
        (network.down_blocks, of_level),
        (network.up_blocks, of_level[::-1]),
        ([network.mid_block], of_level[-1:]),
    ):
        for block, edge in zip(blocks, edges, strict=True):
            found += [edge] * len(getattr(block, "attentions", None) or ())
    return found


def reference_network(
    channels: tuple[int, ...], image_token: int, side: int
) -> tuple[nn.Module, Run]:
    """The reference network, which ends at its last block."""
    network = unet(channels, image_token)
    network.conv_norm_out, network.conv_out = None, nn.Identity()
    latents, token = torch.randn(1, 4, side, side), torch.randn(1, 1, image_token)
    return network, lambda: network(latents, 0, token).sample


class ConvolutionBlock(nn.Module):
    def __init__(self, channels: int, out: int):
        super().__init__()
        widths = (channels, out // 2, out // 4, out // 4)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[:3])
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.skip = nn.Identity()
        if channels != out:
            skip = nn.Conv2d(channels, out, 1, bias=False)
            self.skip = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), skip)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, parts = x, []
        for norm, conv in zip(self.norms, self.convs, strict=True):
            parts.append(h := conv(F.relu(norm(h))))
        return self.skip(x) + torch.cat(parts, dim=1)


class Hourglass(nn.Module):
    def __init__(self, depth: int, channels: int):
        super().__init__()
        self.beside, self.before, self.after = (
            ConvolutionBlock(channels, channels) for _ in range(3)
        )
        within = Hourglass(depth - 1, channels) if depth > 1 else None
        self.within = within or ConvolutionBlock(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.after(self.within(self.before(F.max_pool2d(x, 2))))
        return self.beside(x) + F.interpolate(low, size=x.shape[2:], mode="bilinear")


class PatchAttention(nn.Module):
    def __init__(self, channels: int, side: int, patch: int, width: int = 1024):
        super().__init__()
        self.patch = patch
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)
        self.register_buffer("places", torch.randn(1, (side // patch) ** 2, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads=HEADS, dim_head=width // HEADS)
        self.ff = FeedForward(width)
        self.proj_out = nn.Linear(width // patch**2, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.proj(self.norm(x))
        rows, p = h.shape[2], self.patch
        h = h.flatten(2).transpose(1, 2) + self.places
        h = h + self.attn(self.norm1(h))
        h = h + self.ff(self.norm2(h))
        h = self.proj_out(h.unflatten(2, (p, p, -1)).unflatten(1, (rows, -1)))
        return x + h.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


class MotionEncoder(nn.Module):
    """The full motion encoder (src/models/motion_encoder.py)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            ConvolutionBlock(64, 128),
            PatchAttention(128, 112, 4),
            nn.MaxPool2d(2),
            ConvolutionBlock(128, 128),
            ConvolutionBlock(128, 256),
            PatchAttention(256, 56, 2),
            Hourglass(4, 256),
            ConvolutionBlock(256, 256),
            nn.Conv2d(256, 256, 1),
            nn.BatchNorm2d(256),
            PatchAttention(256, 56, 2),
            nn.ReLU(),
            nn.Conv2d(256, 68, 1),
            nn.BatchNorm2d(68),
            nn.ReLU(),
            nn.Conv2d(68, 1, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(28 * 28, 512),
        )
        self.box = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64))
        self.final_proj = nn.Linear(512 + 64, 512)

    def forward(self, x: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        return self.final_proj(torch.cat([self.layers(x), self.box(box)], dim=1))


def motion_encoder(crops: int) -> tuple[nn.Module, Run]:
    """Crops of 224 pixels to motion tokens."""
    network, images, box = MotionEncoder(), torch.randn(crops, 3, 224, 224), torch.randn(crops, 3)
    return network, lambda: network(images, box)


def vae_decoder(channels: tuple[int, ...], side: int) -> tuple[nn.Module, Run]:
    """The decoder of Stable Diffusion's autoencoder."""
    levels = len(channels)
    network = diffusers.AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )
    latents = torch.randn(1, 4, side, side)
    return network, lambda: network.decode(latents).sample


def wav2vec2(sizes: dict[str, Any], seconds: int) -> tuple[nn.Module, Run]:
    """wav2vec2 with features interpolated to 25 a second before its transformer."""
    network = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**sizes))
    audio = torch.randn(1, 16_000 * seconds)

    def listen() -> torch.Tensor:
        features = network.feature_extractor(audio)
        features = F.interpolate(features, size=25 * seconds, align_corners=True, mode="linear")
        hidden, _ = network.feature_projection(features.transpose(1, 2))
        return network.encoder(hidden).last_hidden_state

    return network, listen
