"""A small picture decoder that supervises the motion latent directly, in training only.

X-NeMo trains its latent with a second, GAN-based decoder beside the diffusion loss (abstract of
arXiv 2507.23143). This one sees the latent and a coarse crop of the reference, so that it needs no
identity from the latent.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from xactor_jax.nn.blocks import upsample
from xactor_jax.nn.layers import Conv, Linear
from xactor_jax.nn.norms import group_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceDecoderConfig:
    """Sizes; every entry of `channels` doubles the grid once."""

    latent: int = 512
    grid: int = 4
    channels: tuple[int, ...] = (128, 64, 32)
    dtype: str = "float32"

    @property
    def image_size(self) -> int:
        """Side of the decoded crop in pixels."""
        return self.grid * 2 ** len(self.channels)


class FaceDecoder(nnx.Module):
    """Motion latent + coarse reference crop -> coarse crop of the target."""

    def __init__(self, config: FaceDecoderConfig, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype = jnp.dtype(c.dtype)
        wide = c.channels[0]

        def conv(inside: int, outside: int, stride: int = 1, **kind) -> nnx.Conv:
            return Conv(
                inside, outside, (3, 3), strides=stride, padding=1, dtype=dtype, rngs=rngs, **kind
            )

        self.motion = Linear(c.latent, c.grid**2 * wide, dtype=dtype, rngs=rngs)
        fine_to_coarse = c.channels[::-1]
        self.down = nnx.List(
            [
                conv(inside, outside, 2)
                for inside, outside in zip((3, *fine_to_coarse), fine_to_coarse, strict=False)
            ]
        )
        self.up = nnx.List(
            [
                conv(inside + skip, outside)
                for inside, skip, outside in zip(
                    (2 * wide, *c.channels[1:]),
                    (0, *c.channels[1:]),
                    (*c.channels[1:], c.channels[-1]),
                    strict=True,
                )
            ]
        )
        self.norms = nnx.List([group_norm(up.out_features, 8, 1e-5, rngs) for up in self.up])
        self.out = conv(c.channels[-1], 3, kernel_init=nnx.initializers.zeros)

    def __call__(
        self, latent: Float[Array, "b d"], reference: Float[Array, "b h w 3"]
    ) -> Float[Array, "b h w 3"]:
        """Pictures in [-1, 1]; the output is a change of the reference crop."""
        c = self.config
        skips, x = [], reference.astype(c.dtype)
        for down in self.down:
            x = nnx.silu(down(x))
            skips.append(x)
        motion = self.motion(latent.astype(c.dtype)).reshape(-1, c.grid, c.grid, c.channels[0])
        x = jnp.concatenate([motion, skips.pop()], axis=-1)
        for norm, up in zip(self.norms, self.up, strict=True):
            x = upsample(nnx.silu(norm(up(x))))
            if skips:
                x = jnp.concatenate([x, skips.pop()], axis=-1)
        return reference + self.out(x).astype(jnp.float32)
