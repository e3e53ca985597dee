"""Chunk after chunk: autoregressive sampling over a sliding context of finished chunks.

What later chunks see of a finished one is fixed when it is finished. Three ways to commit it:

    scaled    one more pass takes (1 - h) x, labelled as the noise level h   (1)
    noised    the same of (1 - h) x + h ε
    kept      the keys and values of its last denoising pass stay

and the attention's keys and values of that pass are kept. The first is diffusion forcing's
stabilisation without added noise (buoyancy99/diffusion-forcing), the second SkyReels-V2's, the last
saves a pass (MiniWorld), and shows a history as noisy as that pass found it: 1 / steps, which the
training should have shown (`Forcing.history_level`). The chunks before the context then still act
on the new one through what newer chunks have kept of them, as they do not where the whole context
is computed again for every chunk; until the context is full, both are the same.

Several chunks may be in flight, each noisier than the one before it: a pyramid (Pyramidal Flow's
and FloodDiffusion's stairs, arXiv 2512.03520). A round takes chunk a of A, counted from 0,

    from level (a + 1) / A to level a / A                                    (2)

in steps / A sweeps over all of them; then the first is finished and a new one joins as noise. Each
chunk still takes all its steps, in an A-th of the sweeps a chunk, and must know the sound of those
in flight after it.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xactor_jax.diffusion.processes import Flow

COMMITS = ("scaled", "noised", "kept")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a new chunk is sampled after finished ones."""

    chunk: int
    context: int
    flow: Flow
    steps: int = 10
    chunks_in_flight: int = 1  # A of (2)
    history_level: float = 0.02  # h of (1)
    commit: str = "scaled"
    sink: int = 0  # first frames that stay in the context for good

    def __post_init__(self):
        if self.commit not in COMMITS:
            raise ValueError(f"commit {self.commit!r}: use one of {', '.join(COMMITS)}")
        if self.steps < 1:
            raise ValueError(f"{self.steps} steps: at least 1")
        if not 0 <= self.history_level < 1:
            raise ValueError(f"a history level of {self.history_level}: use 0 to 1, 1 left out")
        if self.chunks_in_flight < 1 or self.steps % self.chunks_in_flight:
            raise ValueError(
                f"{self.steps} steps are not shared evenly by {self.chunks_in_flight} chunks in "
                "flight; take a multiple"
            )
        if self.history < self.chunk:
            raise ValueError(
                f"a context of {self.context} frames has no room for {self.chunks_in_flight} "
                f"chunks of {self.chunk} in flight and one before them"
            )
        if self.sink and not 0 < self.sink <= self.history - self.chunk:
            raise ValueError(
                f"a sink of {self.sink} frames leaves no room for newer ones: use 0 to "
                f"{self.history - self.chunk}"
            )

    @property
    def in_flight(self) -> int:
        """Frames that are denoised together."""
        return self.chunks_in_flight * self.chunk

    @property
    def history(self) -> int:
        """Finished frames that those in flight see at most."""
        return self.context - self.in_flight

    def levels(self, begun: int) -> Float[np.ndarray, "sweeps+1 chunks"]:
        """Noise levels of the chunks in flight before, between and after the sweeps of a round (2).

        Args:
          begun: how many chunks take part, up to all; while the first ones begin, those after them
            wait as noise.
        """
        sweeps, chunks = self.steps // self.chunks_in_flight, self.chunks_in_flight
        done = np.arange(sweeps + 1)[:, None] / sweeps
        place = np.arange(chunks) + 1 + chunks - begun
        return np.clip((place - done) / chunks, 0, 1).astype(np.float32)

    def finished(
        self, chunk: Float[Array, "b c d"], noise: Float[Array, "b c d"]
    ) -> tuple[Float[Array, "b c d"], Float[Array, ""]]:
        """A finished chunk as later ones see it, and its noise level: z and h of (1)."""
        level = jnp.asarray(self.history_level, chunk.dtype)
        added = level * noise.astype(chunk.dtype) if self.commit == "noised" else 0
        return (1 - level) * chunk + added, level
