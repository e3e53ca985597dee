"""Codecs between pictures and the latents the renderer works on.

Every codec has `encode(images) -> latents` (the mean, scaled to be denoised) and
`decode(latents) -> images`, images in [-1, 1].
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from xactor_jax.nn.layers import Conv
from xactor_jax.nn.patches import from_patches, to_patches


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchCodecConfig:
    """Sizes of the small codec."""

    factor: int = 8
    channels: int = 32
    hidden: int = 64
    scale: float = 0.5
    dtype: str = "float32"


class PatchCodec(nnx.Module):
    """A small codec: principal components of patches, and a learned residual decoder.

    The analysis is an orthonormal basis times `scale`, so distances between latents are distances
    between pictures; it is fitted in closed form and stays fixed. The synthesis starts as its
    transpose and learns what neighbouring patches tell about the detail that was dropped.
    """

    def __init__(self, config: PatchCodecConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype = jnp.dtype(c.dtype)
        pixels = 3 * c.factor**2
        self.mean = nnx.BatchStat(jnp.zeros(pixels))
        self.basis = nnx.BatchStat(jnp.eye(pixels, c.channels))
        self.conv_in = Conv(c.channels, c.hidden, (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.conv_mid = Conv(c.hidden, c.hidden, (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.detail = Conv(
            c.hidden,
            pixels,
            (3, 3),
            padding=1,
            kernel_init=nnx.initializers.zeros,
            dtype=dtype,
            rngs=rngs,
        )

    def encode(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b h/f w/f c"]:
        """Pictures in [-1, 1] -> latents."""
        patches = to_patches(images, self.config.factor)
        return self.config.scale * ((patches - self.mean[...]) @ self.basis[...])

    def decode(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b h*f w*f 3"]:
        """Latents -> pictures in about [-1, 1]."""
        hidden = nnx.silu(self.conv_in(latents.astype(self.config.dtype)))
        hidden = nnx.silu(self.conv_mid(hidden))
        plain = (latents / self.config.scale) @ self.basis[...].T + self.mean[...]
        return from_patches(plain + self.detail(hidden), self.config.factor)


def fit_basis(
    images: Float[np.ndarray, "b h w 3"], config: PatchCodecConfig
) -> dict[str, np.ndarray]:
    """Mean and leading principal components of the patches of pictures in [-1, 1]."""
    patches = np.asarray(to_patches(images, config.factor), np.float32)
    patches = patches.reshape(-1, patches.shape[-1])
    mean = patches.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    basis = vectors[:, ::-1][:, : config.channels]
    return {"mean": mean.astype(np.float32), "basis": np.ascontiguousarray(basis, np.float32)}
