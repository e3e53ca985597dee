"""Positions and noise levels as vectors."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from xactor_jax.nn.layers import Linear


def sinusoidal(values: Float[Array, "*s"], width: int) -> Float[Array, "*s {width}"]:
    """Cosines, then sines, at frequencies 1 to 1/10000 (diffusers Timesteps, flipped)."""
    frequencies = jnp.exp(-np.log(10_000.0) * jnp.arange(width // 2) / (width // 2))
    angles = values[..., None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def sincos_positions(length: int, width: int) -> Float[np.ndarray, "{length} {width}"]:
    """Fixed 1-D positions, sines then cosines (x-nemo-inference motion_encoder, `pe`)."""
    frequencies = 10_000.0 ** (-np.arange(width // 2) / (width / 2))
    angles = np.arange(length)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def sincos_grid(size: int, width: int) -> Float[np.ndarray, "{size} {size} {width}"]:
    """Fixed 2-D positions: half the features for the column, half for the row (PatchEmbed)."""
    axis = sincos_positions(size, width // 2)
    columns = np.broadcast_to(axis[None], (size, size, width // 2))
    rows = np.broadcast_to(axis[:, None], (size, size, width // 2))
    return np.concatenate([columns, rows], axis=-1)


def interleaved_positions(length: int, width: int) -> Float[np.ndarray, "{length} {width}"]:
    """Fixed 1-D positions, sine and cosine alternating (AnimateDiff temporal modules)."""
    angles = np.arange(length)[:, None] * np.exp(-np.log(10_000.0) * np.arange(0, width, 2) / width)
    return (
        np.stack([np.sin(angles), np.cos(angles)], axis=-1)
        .reshape(length, width)
        .astype(np.float32)
    )


def rotate(
    x: Float[Array, "b n heads d"],
    positions: Float[Array, "#b n"] | Float[np.ndarray, "#b n"],
    theta: float = 10_000.0,
) -> Float[Array, "b n heads d"]:
    """Rotary position embedding of the two halves of each head (RoFormer, arXiv 2104.09864).

    Sines and cosines of positions in a NumPy array are computed beforehand, and not for every head.
    """
    half = x.shape[-1] // 2
    numbers = np if isinstance(positions, np.ndarray) else jnp
    angles = positions[..., None, None] * theta ** (-numbers.arange(half) / half)
    precise = jnp.promote_types(x.dtype, jnp.float32)
    cosine, sine = (f(angles).astype(precise) for f in (numbers.cos, numbers.sin))
    left, right = x[..., :half], x[..., half:]
    rotated = jnp.concatenate([left * cosine - right * sine, right * cosine + left * sine], axis=-1)
    return rotated.astype(x.dtype)


class NoiseLevelEmbedding(nnx.Module):
    """Noise level in [0, 1] -> features, through 1000 steps as Stable Diffusion counts them."""

    def __init__(self, frequencies: int, width: int, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.frequencies, self.dtype = frequencies, dtype
        self.linear_1 = Linear(frequencies, width, dtype=dtype, rngs=rngs)
        self.linear_2 = Linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, noise_level: Float[Array, "*s"]) -> Float[Array, "*s d"]:
        features = sinusoidal(1000.0 * noise_level, self.frequencies).astype(self.dtype)
        return self.linear_2(nnx.silu(self.linear_1(features)))
