"""Passes of the motion transformer in training: noisy chunks by themselves, or after clean copies.

Only rows under clean history need a copy of every chunk before the noisy ones, and twice the work
(diffusion/noise_levels.py); the others go through the network without.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.diffusion.noise_levels import Forcing, Levels, chunk_causal_mask, doubled_mask
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.samplers import euler_step
from xactor_jax.models.motion_transformer import MotionTransformer
from xactor_jax.sharding import share_evenly


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CopyDraws:
    """What is random in clean copies; drawn for all rows, so that no row depends on the others."""

    noise: Float[Array, "b t d"]
    own: Float[Array, "b 1 1"]  # uniform in [0, 1]: below a share, near-truth is the history
    own_level: Float[Array, "b 1"]  # that near-truth is denoised from
    own_noise: Float[Array, "b t d"]

    @classmethod
    def of(cls, key: PRNGKeyArray, truth: Float[Array, "b t d"]) -> CopyDraws:
        """Draws for the copies of a batch."""
        noise_key, own_key, level_key, own_noise_key = jax.random.split(key, 4)
        return cls(
            jax.random.normal(noise_key, truth.shape),
            jax.random.uniform(own_key, (len(truth), 1, 1)),
            jax.random.uniform(level_key, (len(truth), 1), minval=0.3, maxval=0.7),
            jax.random.normal(own_noise_key, truth.shape),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a batch and all that the network is told of them."""

    truth: Float[Array, "b t d"]  # standardised motion latents
    noisy: Float[Array, "b t d"]
    levels: Levels
    draws: CopyDraws
    told: dict[str, Any]  # by the names of the network's arguments, each with a row for every row

    def part(self, group: int, which: slice) -> Rows:
        """Of every `group` rows the chosen ones. Rows stay on their devices."""

        def chosen(x: Array) -> Array:
            return x.reshape(-1, group, *x.shape[1:])[:, which].reshape(-1, *x.shape[1:])

        return jax.tree.map(chosen, self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForcedPasses:
    """How a batch goes through the network under diffusion forcing."""

    chunk: int
    flow: Flow
    forcing: Forcing
    own_history: float = 0.0  # share of clean copies that are the model's own near-truth
    own_history_steps: int = 3  # of its denoising

    def output(self, model: MotionTransformer, rows: Rows) -> Float[Array, "b t d"]:
        """The network's output for the noisy latents."""
        batch = len(rows.truth)
        first, group = self.forcing.dealt(batch)
        if first == 0:
            return self._alone(model, rows)
        if first == group or not share_evenly(batch // group):
            return self._copied(model, rows)
        outputs = (
            self._copied(model, rows.part(group, slice(first))),
            self._alone(model, rows.part(group, slice(first, None))),
        )
        groups = [x.reshape(batch // group, -1, *x.shape[1:]) for x in outputs]
        return jnp.concatenate(groups, axis=1).reshape(rows.truth.shape)

    def _alone(self, model: MotionTransformer, rows: Rows) -> Float[Array, "b t d"]:
        """Noisy chunks see each other."""
        b, t, _ = rows.noisy.shape
        return model(
            rows.noisy,
            self._told(rows.levels.noisy),
            jnp.broadcast_to(jnp.arange(t), (b, t)),
            chunk_causal_mask(t, self.chunk)[None],
            **rows.told,
        )

    def _copied(self, model: MotionTransformer, rows: Rows) -> Float[Array, "b t d"]:
        """Noisy chunks see the truth of those before them, or the model's own near-truth."""
        truth, draws, levels = rows.truth, rows.draws, rows.levels
        if self.own_history:
            near = self.near_truth(model, rows)
            truth = jnp.where(draws.own < self.own_history, near, truth)
        # A label without noise still scales the data, as the sampler presents finished chunks.
        added = levels.history_noise[..., None] * draws.noise
        copy = (1 - levels.history_label[..., None]) * truth + added
        return self._doubled(model, copy, rows)

    def _doubled(
        self, model: MotionTransformer, copy: Float[Array, "b t d"], rows: Rows
    ) -> Float[Array, "b t d"]:
        """The output of the noisy half of [clean copy | noisy copy] (diffusion/noise_levels.py)."""
        levels, told = rows.levels, rows.told
        b, t, _ = copy.shape
        twice: dict[str, Any] = {
            name: jnp.tile(told[name], (1, 2, 1)) for name in ("audio_heard", "direction")
        }
        label = jnp.broadcast_to(levels.history_label, (b, t))
        return model(
            jnp.concatenate([copy, rows.noisy], axis=1),
            self._told(jnp.concatenate([label, levels.noisy], axis=1)),
            jnp.tile(jnp.arange(t), (b, 2)),
            doubled_mask(t, self.chunk, levels.clean_history, levels.history_seen),
            **told | twice,
        )[:, t:]

    def near_truth(self, model: MotionTransformer, rows: Rows) -> Float[Array, "b t d"]:
        """The truth half noised and denoised by the model, without a gradient.

        History with the model's own faults that the truth still continues: after a history of its
        free running, the truth would teach it to jump.
        """
        truth, first = rows.truth, rows.draws.own_level
        z = self.flow.corrupt(truth, rows.draws.own_noise, first)
        every = jnp.ones_like(rows.levels.clean_history)
        steps = self.own_history_steps
        for n in range(steps):
            level, following = (first * (1 - k / steps) for k in (n, n + 1))
            none = jnp.zeros_like(level)
            at = Levels(jnp.broadcast_to(level, truth.shape[:2]), none, none, every, every)
            output = self._doubled(model, truth, dataclasses.replace(rows, noisy=z, levels=at))
            z = euler_step(self.flow, output, z, level[..., None], following[..., None])
        return jax.lax.stop_gradient(z)

    def _told(self, levels: Float[Array, "b n"]) -> Float[Array, "b m"]:
        """Levels as the network is told them: one a chunk where its frames agree, to save work."""
        return levels if self.forcing.per_frame else levels[:, :: self.chunk]
