"""Chunk after chunk: autoregressive sampling over a sliding context of finished chunks.

What later chunks see of a finished one is fixed when it is finished: one more pass takes it clean,
scaled and labelled as slightly noisy,

    z = (1 - h) x,    label h                                                (1)

and the attention's keys and values of that pass are kept. (1) is diffusion forcing's stabilisation
without added noise (buoyancy99/diffusion-forcing). The chunks before the context then still act on
the new one through what newer chunks have kept of them, as they do not where the whole context is
computed again for every chunk; until the context is full, both are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.samplers import euler, linear_levels

Denoiser = Callable[[Float[Array, "b c d"], Float[Array, ""]], Float[Array, "b c d"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a new chunk is sampled after finished ones."""

    chunk: int
    context: int
    flow: Flow
    steps: int = 10
    history_level: float = 0.02  # h of (1)

    @property
    def history(self) -> int:
        """Finished frames that a new chunk sees at most."""
        return self.context - self.chunk

    def next_chunk(self, denoise: Denoiser, noise: Float[Array, "b c d"]) -> Float[Array, "b c d"]:
        """Denoise the next chunk in `steps` updates.

        Args:
          denoise: (the chunk, its noise level) -> the network's output, which knows the past.
          noise: where the chunk starts.
        """
        return euler(denoise, noise, linear_levels(self.steps), self.flow)

    def finished(
        self, chunk: Float[Array, "b c d"]
    ) -> tuple[Float[Array, "b c d"], Float[Array, ""]]:
        """A finished chunk as later ones see it, and its noise level: z and h of (1)."""
        return (1 - self.history_level) * chunk, jnp.asarray(self.history_level)
