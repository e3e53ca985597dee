"""Normalisation, always computed in fp32."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


def group_norm(channels: int, groups: int, epsilon: float, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Group normalisation with at most `groups` groups (fewer where the channels do not divide)."""
    while channels % groups:
        groups -= 1
    return nnx.GroupNorm(channels, num_groups=groups, epsilon=epsilon, rngs=rngs)


def layer_norm(width: int, rngs: nnx.Rngs, *, affine: bool = True) -> nnx.LayerNorm:
    """Layer normalisation with torch's epsilon."""
    return nnx.LayerNorm(width, epsilon=1e-5, use_bias=affine, use_scale=affine, rngs=rngs)


def modulate(
    x: Float[Array, "*n d"], shift: Float[Array, "*#n d"], scale: Float[Array, "*#n d"]
) -> Float[Array, "*n d"]:
    """Scale and shift normalised tokens."""
    return x * (1 + scale) + shift


class ConvolutionNorm(nnx.Module):
    """The norm of the motion encoder's convolutions.

    `batch` uses stored statistics, as the released network does; they are parameters that stay
    fixed. `group` has none and is for training from scratch.
    """

    def __init__(self, channels: int, kind: str, *, rngs: nnx.Rngs):
        self.kind = kind
        if kind == "batch":
            self.scale = nnx.Param(jnp.ones(channels))
            self.bias = nnx.Param(jnp.zeros(channels))
            self.mean = nnx.BatchStat(jnp.zeros(channels))
            self.var = nnx.BatchStat(jnp.ones(channels))
        elif kind == "group":
            self.norm = group_norm(channels, 8, 1e-5, rngs)
        else:
            raise ValueError(f"norm must be 'batch' or 'group', not {kind!r}")

    def __call__(self, x):
        if self.kind == "group":
            return self.norm(x)
        inverse = self.scale[...] / jnp.sqrt(self.var[...] + 1e-5)
        return ((x - self.mean[...]) * inverse + self.bias[...]).astype(x.dtype)
