"""X-NeMo's generation: a portrait in given motion, all frames from noise to data together.

Step by step it is that of bytedance/x-nemo-inference
(src/pipelines/pipeline_pose2vid_motenc_long.py), with every condition computed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.diffusion.guidance import (
    ConditionedDenoiser,
    Conditions,
    both,
    guided_output,
)
from xactor_jax.diffusion.processes import DDPM
from xactor_jax.diffusion.samplers import ddim_step, in_windows, leading_levels, trailing_levels
from xactor_jax.diffusion.windows import circular_windows, open_windows

_SPACINGS = {"leading": leading_levels, "trailing": trailing_levels}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reenactment:
    """How a video is sampled; the defaults are the published ones.

    For production, few steps want `spacing="trailing"`, and a video that does not loop wants
    `circular=False`; `Reenactment.of` chooses them.
    """

    process: DDPM = DDPM()
    steps: int = 35
    spacing: str = "leading"  # or "trailing"
    guidance: float = 2.5  # 1: none, at half the cost
    window: int = 24
    overlap: int = 4
    circular: bool = True  # windows wrap around the end of the video

    def __post_init__(self):
        if self.spacing not in _SPACINGS:
            raise ValueError(f"spacing must be one of {tuple(_SPACINGS)}, not {self.spacing!r}")

    @classmethod
    def of(cls, steps: int, guidance: float) -> Reenactment:
        """As published at the published number of steps or more; with fewer, what suits them.

        Leading steps stop short of pure noise, and the fewer they are the more is missing.
        """
        few = steps < cls.steps
        return cls(
            steps=steps,
            guidance=guidance,
            spacing="trailing" if few else "leading",
            circular=not few,
        )

    @property
    def levels(self) -> Float[Array, " steps+1"]:
        """Falling noise levels."""
        return _SPACINGS[self.spacing](self.steps, self.process.timesteps)

    def start(
        self, reference: Float[Array, "b h w c"], frames: int, key: PRNGKeyArray
    ) -> Float[Array, "b t h w c"]:
        """The blurred reference in every frame, each with noise of its own.

        Even the first level keeps a trace of the data, so pure noise would be no start of its path.
        """
        blurred = gaussian_blur(reference)[:, None]
        still = jnp.broadcast_to(blurred, (len(reference), frames, *reference.shape[1:]))
        return self.process.corrupt(still, jax.random.normal(key, still.shape), self.levels[0])

    def windows(self, frames: int, key: PRNGKeyArray) -> Iterator[list[np.ndarray]]:
        """Windows of every step, begun at a random frame each time."""
        windows = circular_windows if self.circular else open_windows
        for offset in np.asarray(jax.random.randint(key, (self.steps,), 0, self.window)):
            yield windows(frames, self.window, self.overlap, int(offset))

    def sample(
        self,
        denoise: ConditionedDenoiser,
        reference: Float[Array, "b h w c"],
        conditions: Conditions,
        reference_motion: Any,
        key: PRNGKeyArray,
    ) -> Iterator[Float[Array, "b t h w c"]]:
        """Latents of the video after every step; the last are the finished ones.

        Args:
          denoise: (noisy latents of a window, σ of each video, conditions) -> predicted noise.
            Compile it: it is called once a window and step, always in the same shapes, with both
            halves of guidance in one batch.
          reference: the portrait's latent.
          conditions: of all frames.
          reference_motion: the portrait's own motion, as `Conditions.null` takes it.
          key: one key gives one video.
        """
        frames = jax.tree.leaves(conditions.motion)[0].shape[1]
        noise_key, window_key = jax.random.split(key)
        if self.guidance == 1:
            every = conditions
        else:
            every = both(conditions.null(reference_motion), conditions)

        def denoise_window(z, level, window):
            if self.guidance == 1:
                return denoise(z, jnp.full(len(z), level), every.at(window))
            return guided_output(denoise, z, level, every.at(window), self.guidance)

        yield from in_windows(
            denoise_window,
            self.start(reference, frames, noise_key),
            self.levels,
            self.windows(frames, window_key),
            partial(ddim_step, self.process),
        )


def gaussian_blur(
    x: Float[Array, "b h w c"], size: int = 9, deviation: float = 18.0
) -> Float[Array, "b h w c"]:
    """Gaussian blur of `size` x `size` cells, reflected at the border as torchvision does."""
    half = size // 2
    weights = np.exp(-0.5 * ((np.arange(size) - half) / deviation) ** 2)
    weights = jnp.asarray(weights / weights.sum(), jnp.float32)
    x = jnp.pad(x, [(0, 0), (half, half), (half, half), (0, 0)], mode="reflect")
    for axis in (1, 2):
        places = np.arange(x.shape[axis] - 2 * half)[:, None] + np.arange(size)
        x = jnp.tensordot(jnp.take(x, places, axis=axis), weights, axes=[[axis + 1], [0]])
    return x
