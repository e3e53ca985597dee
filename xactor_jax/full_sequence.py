"""Full-sequence diffusion: all of a recording's motion leaves the noise together, in windows.

What diffusion forcing is compared with: one noise level for all frames, attention both ways. At
every step the outputs of overlapping windows are averaged, and the seams move from step to step.
All of the sound must be known beforehand, and memory grows with it.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.diffusion.samplers import Window, euler_step, in_windows, linear_levels
from xactor_jax.diffusion.windows import open_windows
from xactor_jax.models.motion_cache import KeyValueCache
from xactor_jax.motion_sampler import Flight, MotionSampler, MotionSampling
from xactor_jax.sharding import to_host


def act_together(
    sampler: MotionSampler,
    features: Float[np.ndarray, "b t f"],
    reference: Float[np.ndarray, "b d"] | None,
    key: PRNGKeyArray,
    sampling: MotionSampling,
    direction: Float[np.ndarray, "*#b t w"] | None = None,
) -> Float[np.ndarray, "b t d"]:
    """Motion latents of whole recordings; windows of the context overlap by a fifth or more.

    Args:
      features: audio features, one a frame.
      reference: the portraits' own latents.
      direction: what the performers are told, in every frame (data/direction.py).
    """
    c, (batch, frames, _) = sampler.config, features.shape
    if direction is None:
        sampling = dataclasses.replace(sampling, emotion_guidance=1.0)
        direction = np.zeros((frames, c.direction), np.float32)
    told = jnp.broadcast_to(direction, (batch, frames, c.direction))
    portraits, origin = sampler.portraits(reference, batch)
    around = [(0, 0), (c.audio_window, c.audio_window), (0, 0)]
    heard = jnp.asarray(np.pad(features, around))
    known = jnp.asarray(np.pad(np.ones((batch, frames), bool), around[:2]))
    branches = sampler.branches(sampling)
    past = KeyValueCache.empty(c, len(branches) * batch, 0)

    def denoise(z: Array, level: Float[Array, ""], window: Window) -> Array:
        direction = told[:, int(window[0]) : int(window[-1]) + 1]
        sound = slice(int(window[0]), int(window[-1]) + 1 + 2 * c.audio_window)
        flight = Flight(
            z=z,
            past=past,
            audio=heard[:, sound],
            audio_known=known[:, sound],
            direction=direction,
            history_noise=z[:, :0],
            scales=sampling.scales(direction),
            **portraits,
        )
        levels = jnp.broadcast_to(level, (1, len(window)))
        return sampler.predict(branches, sampler.weights, flight, levels)

    overlap = c.context // 5
    seams = np.random.default_rng(0).integers(c.context - overlap, size=sampling.steps)
    cover = [open_windows(frames, c.context, overlap, int(seam)) for seam in seams]
    z = jax.random.normal(key, (batch, frames, c.latent))
    step = functools.partial(euler_step, sampler.flow)
    *_, z = in_windows(denoise, z, linear_levels(sampling.steps), cover, step)
    return to_host(z) * sampler.deviation + origin
