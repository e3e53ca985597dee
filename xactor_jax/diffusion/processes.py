"""The diffusion process: how clean data becomes noise, and what a network's output means.

Rectified flow (Liu et al., arXiv 2209.03003), with x the clean data, ε ~ N(0, I) and a noise level
σ in [0, 1], 1 being pure noise:

    z = (1 - σ) x + σ ε                       (1)
    v = dz/dσ = ε - x                         (2)
    x = z - σ v                               (3)
    ε = z + (1 - σ) v                         (4)
    v = (z - x) / σ                           (5)

A network may predict the velocity v or the sample x. Errors of the two are one another times σ
(3), so the velocity loss of a sample prediction is its squared error over σ². That weight grows
without bound as σ falls, and is clipped (6):

    loss = |x̂ - x|² / max(σ, floor)²          (6)
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

PREDICTIONS = ("velocity", "sample")


def expand(noise_level: Float[Array, "*s"], like: Float[Array, "*s ..."]) -> Float[Array, ...]:
    """Noise levels with trailing axes of length 1, to multiply `like`."""
    return noise_level.reshape(noise_level.shape + (1,) * (like.ndim - noise_level.ndim))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """Rectified flow whose network predicts `prediction`."""

    prediction: str = "velocity"
    floor: float = 0.05  # smallest noise level a sample prediction is divided by (6)

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, not {self.prediction!r}")

    def corrupt(self, x: Array, noise: Array, noise_level: Array) -> Array:
        """z of (1)."""
        level = expand(noise_level, x)
        return (1 - level) * x + level * noise

    def sample(self, output: Array, z: Array, noise_level: Array) -> Array:
        """x that a network output stands for (3)."""
        if self.prediction == "sample":
            return output.astype(jnp.float32)
        return z - expand(noise_level, z) * output.astype(jnp.float32)

    def velocity(self, output: Array, z: Array, noise_level: Array) -> Array:
        """v that a network output stands for (5)."""
        output = output.astype(jnp.float32)
        if self.prediction == "velocity":
            return output
        return (z - output) / jnp.maximum(expand(noise_level, z), self.floor)

    def squared_error(
        self, output: Array, x: Array, noise: Array, noise_level: Array
    ) -> Float[Array, ...]:
        """The velocity's squared error, element by element (6)."""
        output = output.astype(jnp.float32)
        if self.prediction == "velocity":
            return (output - (noise - x)) ** 2
        return ((output - x) / jnp.maximum(expand(noise_level, x), self.floor)) ** 2
