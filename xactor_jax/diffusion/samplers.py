"""Samplers as plain functions: from noise to data along falling noise levels."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from xactor_jax.diffusion.processes import Flow

Denoiser = Callable[[Array, Float[Array, ""]], Array]


def linear_levels(steps: int) -> Float[Array, " steps+1"]:
    """Noise levels from 1 to 0 in equal steps."""
    return jnp.linspace(1.0, 0.0, steps + 1)


def euler(
    denoise: Denoiser, z: Array, levels: Float[Array, " steps+1"], flow: Flow
) -> Float[Array, "..."]:
    """Follow dz/dσ = v from levels[0] to levels[-1]; `denoise(z, σ)` is the network's output.

    A last level of 0 ends exactly on the network's clean sample: z - σ v = x.
    """

    def step(z, pair):
        level, following = pair
        output = denoise(z, level)
        sample = flow.sample(output, z, level)
        # The sample and z span the straight path; this form needs no division at small levels.
        return sample + (following / level) * (z - sample), None

    z, _ = jax.lax.scan(step, z, (levels[:-1], levels[1:]))
    return z
