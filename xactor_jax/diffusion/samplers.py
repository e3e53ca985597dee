"""Samplers as plain functions: from noise to data along falling noise levels.

All are deterministic. One step, from level σ to the following σ', goes through the clean sample x
that the network's output stands for:

    Euler on the flow    z' = x + (σ' / σ) (z - x)                             (1)
    DDIM                 z' = √ᾱ' x + √(1 - ᾱ') ε    (Song et al., arXiv 2010.02502, η = 0)    (2)

A last level of 0 means clean data in both: the path ends exactly on x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xactor_jax.diffusion.processes import DDPM, Flow
from xactor_jax.diffusion.windows import average_windows

Denoiser = Callable[[Array, Float[Array, ""]], Array]
Window = Int[np.ndarray, " n"]
WindowDenoiser = Callable[[Float[Array, "b n ..."], Float[Array, ""], Window], Array]
ChunkDenoiser = Callable[[Float[Array, "b n d"], Any], Float[Array, "b n d"]]
Step = Callable[[Array, Array, Float[Array, ""], Float[Array, ""]], Array]


def linear_levels(steps: int) -> Float[Array, " steps+1"]:
    """Noise levels from 1 to 0 in equal steps."""
    return jnp.linspace(1.0, 0.0, steps + 1)


def leading_levels(steps: int, timesteps: int = 1000) -> Float[Array, " steps+1"]:
    """Noise levels t / timesteps of t = 1 + k ⌊timesteps / steps⌋, falling, then 0.

    How Stable Diffusion's samplers space their steps (diffusers: `leading`, offset 1). The first
    level lies below the noisiest, most of all with few steps.

    Raises ValueError where that many steps do not fit.
    """
    if not 0 < steps < timesteps:
        raise ValueError(
            f"{steps} steps do not fit {timesteps} timesteps: give 1 to {timesteps - 1}"
        )
    falling = 1 + (timesteps // steps) * np.arange(steps)[::-1]
    return jnp.asarray(np.append(falling / timesteps, 0.0), jnp.float32)


def trailing_levels(steps: int, timesteps: int = 1000) -> Float[Array, " steps+1"]:
    """Noise levels t / timesteps in equal steps down from the noisiest, then 0: for few steps.

    diffusers: `trailing` (Lin et al., arXiv 2305.08891).

    Raises ValueError where that many steps do not fit.
    """
    if not 0 < steps <= timesteps // 2:
        raise ValueError(
            f"{steps} steps do not fit {timesteps} timesteps: give 1 to {timesteps // 2}"
        )
    falling = np.round(timesteps - np.arange(steps) * timesteps / steps) - 1
    return jnp.asarray(np.append(falling / timesteps, 0.0), jnp.float32)


def euler_step(
    flow: Flow, output: Array, z: Array, level: Float[Array, ""], following: Float[Array, ""]
) -> Array:
    """One step of Euler's method (1)."""
    sample = flow.sample(output, z, level)
    # The sample and z span the straight path; this form needs no division at small levels.
    return sample + (following / level) * (z - sample)


def ddim_step(
    process: DDPM, output: Array, z: Array, level: Float[Array, ""], following: Float[Array, ""]
) -> Array:
    """One step of DDIM without added noise (2)."""
    sample = process.sample(output, z, level)
    noisy = process.corrupt(sample, output.astype(jnp.float32), following)
    return jnp.where(following > 0, noisy, sample)


def euler(
    denoise: Denoiser, z: Array, levels: Float[Array, " steps+1"], flow: Flow
) -> Float[Array, "..."]:
    """Follow dz/dσ = v from levels[0] to levels[-1]; `denoise(z, σ)` is the network's output."""

    def step(z, pair):
        level, following = pair
        return euler_step(flow, denoise(z, level), z, level, following), None

    z, _ = jax.lax.scan(step, z, (levels[:-1], levels[1:]))
    return z


def ddim(
    denoise: Denoiser, z: Array, levels: Float[Array, " steps+1"], process: DDPM
) -> Float[Array, "..."]:
    """DDIM from levels[0] to levels[-1]; `denoise(z, σ)` is the network's prediction of ε."""

    def step(z, pair):
        level, following = pair
        return ddim_step(process, denoise(z, level), z, level, following), None

    z, _ = jax.lax.scan(step, z.astype(jnp.float32), (levels[:-1], levels[1:]))
    return z


def follow(
    denoise: ChunkDenoiser,
    z: Float[Array, "b n d"],
    levels: Float[Array, "sweeps+1 chunks"],
    flow: Flow,
    chunk: int,
    labels: Float[Array, "sweeps+1 chunks"] | None = None,
    history_noise: Float[Array, "b n d"] | None = None,
    told: Any = None,
) -> Float[Array, "b n d"]:
    """Follow dz/dσ = v with a level for each chunk, from row to row of any level matrix.

    A chunk whose level stays is left as it is. Finished ones, at level 0, are shown as noisy as
    their label says: (1 - label) x, and with `history_noise` ε also label ε.

    Args:
      denoise: (the chunks, what it is told) -> the network's output.
      labels: how noisy the network is told they are (diffusion/level_matrices.py); None: the
        levels.
      told: what `denoise` is told in every sweep, arrays with an axis of sweeps first; None: the
        label of each frame, (1, n).
    """
    levels = jnp.asarray(levels, z.dtype)
    labels = levels if labels is None else jnp.asarray(labels, z.dtype)
    added = 0.0 if history_noise is None else history_noise

    def step(z, rows):
        *rows, told = rows
        level, following, label = (jnp.repeat(row, chunk)[None, :, None] for row in rows)
        shown = jnp.where(level > 0, z, (1 - label) * z + label * added)
        moves = following < level
        output = denoise(shown, label[..., 0] if told is None else told)
        moved = euler_step(flow, output, z, jnp.where(moves, level, 1.0), following)
        return jnp.where(moves, moved, z), None

    z, _ = jax.lax.scan(step, z, (levels[:-1], levels[1:], labels[:-1], told))
    return z


def in_windows(
    denoise: WindowDenoiser,
    z: Float[Array, "b t ..."],
    levels: Float[Array, " steps+1"],
    windows: Iterable[Sequence[Window]],
    step: Step,
) -> Iterator[Float[Array, "b t ..."]]:
    """Sample a video longer than the network sees at once; yields the video after every step.

    Every step denoises all windows, averages the outputs where they overlap, and moves the whole
    video. The loop is Python's, so that a compiled `denoise` serves videos of every length.

    Args:
      denoise: (noisy frames of one window, σ, which frames they are) -> the network's output.
      z: the noisy video at levels[0].
      windows: for every step, the windows that cover the video.
      step: (output, z, σ, following σ) -> z there: `euler_step` or `ddim_step` of a process.
    """
    for level, following, cover in zip(levels[:-1], levels[1:], windows, strict=True):
        # Bound here: the loop's variables change before a generator goes on.
        output = average_windows(
            lambda window, z=z, level=level: denoise(z[:, window], level, window),
            cover,
            z.shape[1],
        )
        z = step(output, z, level, following)
        yield z
