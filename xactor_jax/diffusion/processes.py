"""Diffusion processes: how clean data becomes noise, and what a network's output means.

Both take a noise level σ in [0, 1], clean data x and noise ε ~ N(0, I).

Rectified flow (Liu et al., arXiv 2209.03003), σ = 1 being pure noise:

    z = (1 - σ) x + σ ε                       (1)
    v = dz/dσ = ε - x                         (2)
    x = z - σ v                               (3)
    ε = z + (1 - σ) v                         (4)
    v = (z - x) / σ                           (5)

A network may predict the velocity v or the sample x. Errors of the two are one another times σ
(3), so the velocity loss of a sample prediction is its squared error over σ². That weight grows
without bound as σ falls, and is clipped (6):

    loss = |x̂ - x|² / max(σ, floor)²          (6)

Denoising diffusion (Ho et al., arXiv 2006.11239) in T timesteps t = 0 ... T - 1, with the schedule
that Stable Diffusion calls scaled linear. Here σ = t / T names a timestep, and even the noisiest
keeps a trace of the data:

    β_t = (√β_start + t (√β_end - √β_start) / (T - 1))²      (7)
    ᾱ_t = ∏_{s ≤ t} (1 - β_s)                                (8)
    z = √ᾱ x + √(1 - ᾱ) ε                                    (9)
    x = (z - √(1 - ᾱ) ε) / √ᾱ                                (10)

The network predicts ε. (10) divides by 0.015 at the last timestep: it needs single precision.
"""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

PREDICTIONS = ("velocity", "sample")


def expand(noise_level: Float[Array, "*s"], like: Float[Array, "*s ..."]) -> Float[Array, ...]:
    """Noise levels with trailing axes of length 1, to multiply `like`."""
    return noise_level.reshape(noise_level.shape + (1,) * (like.ndim - noise_level.ndim))


def at_least_single(output: Float[Array, "..."]) -> Float[Array, "..."]:
    """A network's output in single precision, or double where it is that already."""
    return output.astype(jnp.promote_types(output.dtype, jnp.float32))


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
            return at_least_single(output)
        return z - expand(noise_level, z) * at_least_single(output)

    def velocity(self, output: Array, z: Array, noise_level: Array) -> Array:
        """v that a network output stands for (5)."""
        output = at_least_single(output)
        if self.prediction == "velocity":
            return output
        return (z - output) / jnp.maximum(expand(noise_level, z), self.floor)

    def squared_error(
        self, output: Array, x: Array, noise: Array, noise_level: Array
    ) -> Float[Array, ...]:
        """The velocity's squared error, element by element (6)."""
        output = at_least_single(output)
        if self.prediction == "velocity":
            return (output - (noise - x)) ** 2
        return ((output - x) / jnp.maximum(expand(noise_level, x), self.floor)) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM:
    """Denoising diffusion whose network predicts the noise.

    The defaults are X-NeMo's (bytedance/x-nemo-inference configs/inference), which end noisier than
    Stable Diffusion's.
    """

    timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.02

    @functools.cached_property
    def alpha_bar(self) -> Float[np.ndarray, " timesteps"]:
        """ᾱ of every timestep (8), in double precision."""
        beta = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.timesteps) ** 2
        return np.cumprod(1 - beta)

    def scales(self, noise_level: Array, like: Array) -> tuple[Array, Array]:
        """√ᾱ and √(1 - ᾱ) of the timesteps nearest to noise levels, to multiply `like`."""
        timestep = jnp.round(self.timesteps * jnp.asarray(noise_level)).astype(int)
        timestep = jnp.clip(timestep, 0, self.timesteps - 1)
        tables = np.sqrt([self.alpha_bar, 1 - self.alpha_bar]).astype(np.float32)
        signal, noise = (expand(jnp.asarray(table)[timestep], like) for table in tables)
        return signal, noise

    def corrupt(self, x: Array, noise: Array, noise_level: Array) -> Array:
        """z of (9)."""
        signal_scale, noise_scale = self.scales(noise_level, x)
        return signal_scale * x + noise_scale * noise

    def sample(self, output: Array, z: Array, noise_level: Array) -> Array:
        """x that a network output stands for (10)."""
        signal_scale, noise_scale = self.scales(noise_level, z)
        z, output = z.astype(jnp.float32), output.astype(jnp.float32)
        return (z - noise_scale * output) / signal_scale

    def squared_error(
        self, output: Array, x: Array, noise: Array, noise_level: Array
    ) -> Float[Array, ...]:
        """The noise's squared error, element by element; unweighted, it needs neither x nor σ."""
        return (output.astype(jnp.float32) - noise) ** 2
