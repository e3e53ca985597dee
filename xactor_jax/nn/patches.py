"""Pictures, or latents, as grids of patches."""

from __future__ import annotations

from einops import rearrange


def to_patches(images, factor: int):
    """(b, h, w, c) -> (b, h/factor, w/factor, factor^2 c)."""
    return rearrange(images, "b (h p) (w q) c -> b h w (p q c)", p=factor, q=factor)


def from_patches(patches, factor: int):
    """The inverse of `to_patches`."""
    return rearrange(patches, "b h w (p q c) -> b (h p) (w q) c", p=factor, q=factor)
