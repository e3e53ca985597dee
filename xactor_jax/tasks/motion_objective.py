"""What the motion transformer learns: the loss of diffusion forcing, without the data."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.config import build
from xactor_jax.data.audio_features import MelConfig
from xactor_jax.data.direction import WIDTH
from xactor_jax.data.latents import example_shapes
from xactor_jax.data.speech_features import SpeechModel
from xactor_jax.diffusion.noise_levels import Forcing, Levels, fused_snr_weights
from xactor_jax.diffusion.processes import Flow
from xactor_jax.errors import InputError
from xactor_jax.models.motion_cache import KeyValueCache
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.motion_sampler import (
    Flight,
    MotionSampler,
    MotionSampling,
    heard_audio,
    rollout_of,
)
from xactor_jax.nn.layers import abstract, initial_keys
from xactor_jax.sharding import check_context
from xactor_jax.tasks.forced_passes import CopyDraws, ForcedPasses, Rows

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionLoss:
    """Probabilities and weights of the loss; every value is our default, none is published."""

    drop_audio: float = 0.1
    drop_reference: float = 0.2
    own_history: float = 0.0  # share of clean copies that are the model's own near-truth
    own_history_steps: int = 3  # of its denoising
    fused_snr: bool = False  # weigh chunks by what the past tells of them


class MotionObjective:
    """What is learnt, without the data: parameters, their loss, and shapes of all that it reads."""

    samples = True

    def __init__(self, config: Any, latent: int, hearing: MelConfig | SpeechModel):
        self.hearing = hearing
        self.config = MotionTransformerConfig(
            latent=latent, audio=hearing.width, direction=WIDTH, **config.motion.to_dict()
        )
        self.flow = build(Flow, config.flow.to_dict())
        self.forcing = build(Forcing, config.forcing.to_dict())
        self.weights = build(MotionLoss, config.loss.to_dict())
        self.passes = ForcedPasses(
            chunk=self.config.chunk,
            flow=self.flow,
            forcing=self.forcing,
            own_history=self.weights.own_history,
            own_history_steps=self.weights.own_history_steps,
        )
        self.sampling = build(MotionSampling, config.sampling.to_dict())
        self._check()
        model = abstract(lambda rngs: MotionTransformer(self.config, rngs=rngs))
        self.graph = nnx.split(model, nnx.Param, ...)[0]

    def _check(self) -> None:
        """Raise InputError for settings that do not go together, before hours are spent on them."""
        c, forcing = self.config, self.forcing
        if c.context % c.chunk:
            raise InputError(
                f"config.motion.context={c.context}: use a multiple of chunk={c.chunk} frames"
            )
        if forcing.in_flight < 1:
            raise InputError(f"config.forcing.in_flight={forcing.in_flight}: use 1 or more")
        if self.weights.own_history and not forcing.clean_history:
            raise InputError(
                "config.loss.own_history needs a share of config.forcing.clean_history"
            )
        if self.weights.fused_snr and forcing.per_frame:
            raise InputError("config.loss.fused_snr weighs chunks; set config.forcing.per_frame=0")
        if c.full_sequence:
            if self.sampling.history_guidance != 1:
                raise InputError("one chunk has no history: use config.sampling.history_guidance=1")
        else:
            try:
                rollout_of(c, self.flow, self.sampling)
            except ValueError as error:
                raise InputError(f"config.sampling: {error}") from error

    @property
    def example_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of one training example."""
        c = self.config
        return example_shapes(c.context, c.audio_window, c.latent, c.audio)

    @property
    def parts(self) -> int:
        """Chunks of the context, which the mesh's context axis divides."""
        return self.config.context // self.config.chunk

    @property
    def frozen_shapes(self) -> Any:
        """Shapes of the latents' statistics, which the loss reads and training never changes."""
        row = jax.ShapeDtypeStruct((self.config.latent,), jnp.float32)
        return {"mean": row, "spread": row, "deviation": row}

    def init(self, key: PRNGKeyArray) -> Any:
        """New parameters."""
        model = MotionTransformer(self.config, rngs=initial_keys(key))
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Velocity loss of noisy latents, each frame at a level of its own."""
        check_context(self.parts, "chunks of the context")
        c = self.config
        level_key, noise_key, copy_key, audio_key, reference_key = jax.random.split(key, 5)
        origin = batch["reference"][:, None] if c.relative else frozen["mean"]
        x = (batch["latents"] - origin) / frozen["deviation"]
        b, t, _ = x.shape
        levels = self.forcing.levels(level_key, b, t // c.chunk, c.chunk)
        dropped = jax.random.bernoulli(audio_key, self.weights.drop_audio, (b, 1, 1))
        told = {
            "audio": batch["audio"],
            "audio_heard": heard_audio(c, batch["audio_known"]) & ~dropped,
            "reference": (batch["reference"] - frozen["mean"]) / frozen["spread"],
            "reference_seen": ~jax.random.bernoulli(
                reference_key, self.weights.drop_reference, (b,)
            ),
            "direction": batch["direction"],
        }
        model = nnx.merge(self.graph, params)
        noise = jax.random.normal(noise_key, x.shape)
        noisy, level = self.flow.corrupt(x, noise, levels.noisy), levels.noisy
        draws = CopyDraws.of(copy_key, x)
        output = self.passes.output(model, Rows(x, noisy, levels, draws, told))
        error = jnp.mean(self.flow.squared_error(output, x, noise, level), axis=-1)
        # Chunks of a staircase that are already clean teach nothing.
        counted = (level > 0) * self._weights(levels)
        loss = jnp.sum(error * counted) / jnp.maximum(jnp.sum(level > 0), 1)
        clean = jnp.mean((self.flow.sample(output, noisy, level) - x) ** 2, axis=-1)
        pure = level > 0.95
        from_noise = jnp.sum(clean * pure) / jnp.maximum(jnp.sum(pure), 1)
        return loss, {"error_from_noise": from_noise}

    def _weights(self, levels: Levels) -> Float[Array, "b t"] | float:
        """What each frame's error counts."""
        if not self.weights.fused_snr:
            return 1.0
        chunk = self.config.chunk
        noisy = levels.noisy[:, ::chunk]  # a chunk has one level: others are refused
        copied = jnp.where(levels.history_seen[:, None], levels.history_noise, 1.0)
        seen = jnp.where(levels.clean_history[:, None], copied, noisy)
        return jnp.repeat(fused_snr_weights(noisy, seen, chunk), chunk, axis=1)

    def sampler(self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray) -> Any:
        """One round of acting after a full context, as many performances as the batch has.

        Of weights that act whole recordings: one step of all frames.
        """
        c, ones = self.config, dict.fromkeys(self.frozen_shapes, np.ones(self.config.latent))
        sampler = MotionSampler(c, self.hearing, self.flow, params, ones)
        plan = None if c.full_sequence else sampler.plan(self.sampling)
        n, history = (
            (c.context, 0) if plan is None else (plan.rollout.in_flight, plan.rollout.history)
        )
        b, near, branches = (
            len(batch["latents"]),
            n + 2 * c.audio_window,
            sampler.branches(self.sampling),
        )
        flight = Flight(
            z=jax.random.normal(key, (b, n, c.latent)),
            past=KeyValueCache.empty(c, len(branches) * b, history),
            audio=batch["audio"][:, :near],
            audio_known=batch["audio_known"][:, :near],
            direction=batch["direction"][:, :n],
            reference=batch["reference"],
            reference_seen=jnp.ones(b, bool),
            history_noise=jnp.zeros((b, c.chunk, c.latent)),
            scales=self.sampling.scales(batch["direction"][:, :n]),
        )
        if plan is None:
            return sampler.predict(branches, params, flight, jnp.ones((1, n)))
        levels = plan.rollout.levels(plan.rollout.chunks_in_flight)
        return sampler.next_chunk(plan, params, flight, jnp.asarray(levels))
