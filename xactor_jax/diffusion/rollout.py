"""Chunk after chunk: autoregressive sampling over a sliding context of finished chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xactor_jax.diffusion.noise_levels import chunk_causal_mask
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.samplers import euler, linear_levels

Denoiser = Callable[
    [Float[Array, "b n d"], Float[Array, "b n"], Bool[Array, "b n n"]], Float[Array, "b n d"]
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a new chunk is sampled after finished ones."""

    chunk: int
    context: int
    flow: Flow
    steps: int = 10
    history_level: float = 0.02  # what the network is told of finished chunks (diffusion forcing)

    @property
    def history(self) -> int:
        """Finished frames that a new chunk sees at most."""
        return self.context - self.chunk

    def next_chunk(
        self,
        denoise: Denoiser,
        history: Float[Array, "b h d"],
        known: Bool[Array, "b h"],
        noise: Float[Array, "b c d"],
    ) -> Float[Array, "b c d"]:
        """Denoise the next chunk.

        Args:
          denoise: (tokens, their noise levels, the mask) -> the network's output.
          history: the last `self.history` finished latents, the newest last.
          known: False where there is no such frame yet.
          noise: where the new chunk starts.
        """
        b = len(history)
        causal = chunk_causal_mask(self.context, self.chunk)
        seen = jnp.concatenate([known, jnp.ones((b, self.chunk), bool)], axis=1)
        # A frame that does not exist sees itself, so that no row of the softmax is empty.
        mask = (causal & seen[:, None, :]) | jnp.eye(self.context, dtype=bool)
        labels = jnp.full((b, self.history), self.history_level)
        finished = (1 - self.history_level) * jnp.where(known[..., None], history, 0.0)

        def denoise_chunk(z, level):
            levels = jnp.concatenate([labels, jnp.full((b, self.chunk), level)], axis=1)
            return denoise(jnp.concatenate([finished, z], axis=1), levels, mask)[:, self.history :]

        return euler(denoise_chunk, noise, linear_levels(self.steps), self.flow)
