"""Learn to act: the motion transformer by diffusion forcing, on latents of the trained encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.acting import perform
from xactor_jax.checkpoint import save_weights
from xactor_jax.config import build, released
from xactor_jax.data.audio_features import MelConfig
from xactor_jax.data.direction import WIDTH
from xactor_jax.data.latents import MotionExamples, cached_tracks, example_shapes
from xactor_jax.data.speech_features import SpeechModel
from xactor_jax.data.tracks import Track, Tracks
from xactor_jax.diffusion.noise_levels import (
    Forcing,
    Levels,
    chunk_causal_mask,
    doubled_mask,
    fused_snr_weights,
)
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.samplers import euler_step
from xactor_jax.errors import InputError
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.motion_sampler import Flight, MotionSampler, MotionSampling, heard_audio
from xactor_jax.nn.layers import abstract, initial_keys
from xactor_jax.release import renderer_at
from xactor_jax.sharding import check_context, to_host

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionLoss:
    """Probabilities and weights of the loss; every value is our default, none is published."""

    drop_audio: float = 0.1
    drop_reference: float = 0.2
    own_history: float = 0.0  # share of items whose clean copy is the model's own near-truth
    own_history_steps: int = 3  # of its denoising
    fused_snr: bool = False  # weigh chunks by what the past tells of them


class MotionObjective:
    """What is learnt, without the data: parameters, their loss, and shapes of all that it reads."""

    def __init__(self, config: Any, latent: int, hearing: MelConfig | SpeechModel):
        self.hearing = hearing
        self.config = MotionTransformerConfig(
            latent=latent, audio=hearing.width, direction=WIDTH, **config.motion.to_dict()
        )
        self.flow = build(Flow, config.flow.to_dict())
        self.forcing = build(Forcing, config.forcing.to_dict())
        self.weights = build(MotionLoss, config.loss.to_dict())
        self.sampling = build(MotionSampling, config.sampling.to_dict())
        model = abstract(lambda rngs: MotionTransformer(self.config, rngs=rngs))
        self.graph = nnx.split(model, nnx.Param, ...)[0]

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
        if self.forcing.doubled:
            copy = self._clean_copy(model, x, levels, told, copy_key)
            output = self._doubled(model, copy, noisy, levels, told)
        else:
            positions = jnp.broadcast_to(jnp.arange(t), (b, t))
            mask = chunk_causal_mask(t, c.chunk)[None]
            output = model(noisy, level, positions, mask, **told)
        error = jnp.mean(self.flow.squared_error(output, x, noise, level), axis=-1)
        # Chunks of a staircase that are already clean teach nothing.
        counted = (level > 0) * self._weights(levels)
        loss = jnp.sum(error * counted) / jnp.maximum(jnp.sum(level > 0), 1)
        clean = jnp.mean((self.flow.sample(output, noisy, level) - x) ** 2, axis=-1)
        pure = level > 0.95
        from_noise = jnp.sum(clean * pure) / jnp.maximum(jnp.sum(pure), 1)
        return loss, {"error_from_noise": from_noise}

    def _doubled(
        self,
        model: MotionTransformer,
        copy: Float[Array, "b t d"],
        noisy: Float[Array, "b t d"],
        levels: Levels,
        told: dict[str, Any],
    ) -> Float[Array, "b t d"]:
        """The output of the noisy half of [clean copy | noisy copy] (diffusion/noise_levels.py)."""
        b, t, _ = noisy.shape
        twice: dict[str, Any] = {
            name: jnp.tile(told[name], (1, 2, 1)) for name in ("audio_heard", "direction")
        }
        label = jnp.broadcast_to(levels.history_label, (b, t))
        return model(
            jnp.concatenate([copy, noisy], axis=1),
            jnp.concatenate([label, levels.noisy], axis=1),
            jnp.tile(jnp.arange(t), (b, 2)),
            doubled_mask(t, self.config.chunk, levels.clean_history, levels.history_seen),
            **told | twice,
        )[:, t:]

    def _clean_copy(
        self,
        model: MotionTransformer,
        x: Float[Array, "b t d"],
        levels: Levels,
        told: dict[str, Any],
        key: PRNGKeyArray,
    ) -> Float[Array, "b t d"]:
        """What noisy chunks see of those before them: the truth, or the model's own near-truth."""
        own_key, noise_key = jax.random.split(key)
        if self.weights.own_history:
            share_key, own_key = jax.random.split(own_key)
            own = jax.random.bernoulli(share_key, self.weights.own_history, (len(x), 1, 1))
            x = jnp.where(own, self._near_truth(model, x, levels, told, own_key), x)
        # A label without noise still scales the data, as the sampler presents finished chunks.
        added = levels.history_noise[..., None] * jax.random.normal(noise_key, x.shape)
        return (1 - levels.history_label[..., None]) * x + added

    def _near_truth(
        self,
        model: MotionTransformer,
        x: Float[Array, "b t d"],
        levels: Levels,
        told: dict[str, Any],
        key: PRNGKeyArray,
    ) -> Float[Array, "b t d"]:
        """The truth half noised and denoised by the model, without a gradient.

        History with the model's own faults that the truth still continues: after a history of its
        free running, the truth would teach it to jump.
        """
        level_key, noise_key = jax.random.split(key)
        first = jax.random.uniform(level_key, (len(x), 1), minval=0.3, maxval=0.7)
        z = self.flow.corrupt(x, jax.random.normal(noise_key, x.shape), first)
        every = jnp.ones_like(levels.clean_history)
        steps = self.weights.own_history_steps
        for n in range(steps):
            level, following = (first * (1 - k / steps) for k in (n, n + 1))
            none = jnp.zeros_like(level)
            at = Levels(jnp.broadcast_to(level, x.shape[:2]), none, none, every, every)
            output = self._doubled(model, x, z, at, told)
            z = euler_step(self.flow, output, z, level[..., None], following[..., None])
        return jax.lax.stop_gradient(z)

    def _weights(self, levels: Levels) -> Float[Array, "b t"] | float:
        """What each frame's error counts."""
        if not self.weights.fused_snr:
            return 1.0
        chunk = self.config.chunk
        noisy = levels.noisy[:, ::chunk]  # one level a chunk, but for levels by frame
        copied = jnp.where(levels.history_seen[:, None], levels.history_noise, 1.0)
        seen = jnp.where(levels.clean_history[:, None], copied, noisy)
        return jnp.repeat(fused_snr_weights(noisy, seen, chunk), chunk, axis=1)

    def sampler(self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray) -> Any:
        """One round of acting after a full context, as many performances as the batch has."""
        c, ones = self.config, dict.fromkeys(self.frozen_shapes, np.ones(self.config.latent))
        sampler = MotionSampler(c, self.hearing, self.flow, params, ones)
        plan = sampler.plan(self.sampling)
        b, n = len(batch["latents"]), plan.rollout.in_flight
        near, levels = n + 2 * c.audio_window, plan.rollout.levels(plan.rollout.chunks_in_flight)
        flight = Flight(
            z=jax.random.normal(key, (b, n, c.latent)),
            past=sampler.empty_past(plan, b),
            audio=batch["audio"][:, :near],
            audio_known=batch["audio_known"][:, :near],
            direction=batch["direction"][:, :n],
            reference=batch["reference"],
            reference_seen=jnp.ones(b, bool),
            history_noise=jnp.zeros((b, c.chunk, c.latent)),
            scales=jnp.asarray(list(self.sampling.guidance.values())),
        )
        return sampler.next_chunk(plan, params, flight, jnp.asarray(levels))


class MotionTask(MotionObjective):
    """Task `motion` of the training loop."""

    def __init__(self, config: Any):
        if not config.renderer:
            raise InputError("config.renderer is empty; give the weights of an autoencoder")
        renderer = renderer_at(config.renderer)
        self.encoder = renderer.encoder
        super().__init__(config, renderer.config.encoder.latent, hearing_of(config))
        self.weights_dtype = config.weights_dtype

        def tracks(split: str) -> Tracks:
            size = renderer.config.encoder.image_size
            cache, folders = config.data.cache, config.data.folders
            return cached_tracks(
                cache, renderer.encoder, folders, split, renderer.encode, size, self.hearing
            )

        train = tracks("train")
        self.frozen = statistics(train)
        self.examples = MotionExamples(
            train,
            self.config.context,
            self.config.audio_window,
            bands=config.mel.bands,
            **config.data.windows.to_dict(),
        )
        self.held_out = [track for track in tracks("test") if len(track.latents) >= 50]
        if not self.held_out:
            folders = ", ".join(config.data.folders)
            raise InputError(f"{folders}: no test clip of 50 frames; prepare longer ones")

    def source(self) -> MotionExamples:
        """The index of windows."""
        return self.examples

    def load(self, element: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Cut one window."""
        return self.examples.load(element, rng)

    def _perform(
        self,
        params: Any,
        frozen: Any,
        tracks: list[Track],
        heard: list[Track],
        key: PRNGKeyArray,
    ) -> np.ndarray:
        """Latents (n, t, d) acted to the audio of `heard`, each from its track's first frame."""
        sampler = MotionSampler(self.config, self.hearing, self.flow, params, to_host(frozen))
        first = np.stack([track.latents[0] for track in tracks])
        length = min(len(t.latents) for t in [*tracks, *heard])
        audio = np.stack([track.audio[:length] for track in heard])
        return perform(sampler, audio, first, key, sampling=self.sampling)

    def evaluate(self, params: Any, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        """Correlation of acted with true latents, to the right audio and to another clip's."""
        numbers = {}
        for source in ("footage", "actor"):
            tracks = [track for track in self.held_out if track.source == source][:16]
            if len(tracks) < 2:
                continue
            for name, heard in (("right", tracks), ("wrong", tracks[1:] + tracks[:1])):
                acted = self._perform(params, frozen, tracks, heard, key)
                truth = np.stack([track.latents[: acted.shape[1]] for track in tracks])
                numbers[f"{source}/correlation_{name}"] = correlation(acted, truth)
                if name == "right":
                    # Within clips: what differs between them is given, not acted.
                    moved, moves = acted.std(axis=1).mean(), truth.std(axis=1).mean()
                    numbers[f"{source}/deviation_ratio"] = float(moved / moves)
        return numbers

    def sample(self, params: Any, frozen: Any, key: PRNGKeyArray, folder: Path) -> None:
        """Curves of the strongest latents of one held-out clip: acted and true."""
        tracks = self.held_out[:2]
        acted = self._perform(params, frozen, tracks, tracks, key)
        if jax.process_index() != 0:
            return
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        strongest = np.argsort(-tracks[0].latents.std(axis=0))[:4]
        figure, axes = plt.subplots(4, 1, figsize=(8, 8), sharex=True)
        for axis, k in zip(axes, strongest, strict=True):
            axis.plot(tracks[0].latents[: acted.shape[1], k], label="true")
            axis.plot(acted[0, :, k], label="acted")
            axis.set_ylabel(f"latent {k}")
        axes[0].legend()
        axes[-1].set_xlabel("frame")
        figure.savefig(folder / "latents.png")
        plt.close(figure)

    def export(self, params: Any, frozen: Any, path: Path) -> None:
        """The transformer's weights, the latents' mean and deviation, and the configs."""
        metadata = {
            "kind": "motion",
            "encoder": self.encoder,
            "motion": released(self.config),
            **description(self.hearing),
            "flow": dataclasses.asdict(self.flow),
            "sampling": dataclasses.asdict(self.sampling),
        }
        weights = {"params": params, "statistics": frozen}
        save_weights(path, weights, metadata, self.weights_dtype)


def hearing_of(config: Any) -> MelConfig | SpeechModel:
    """How the performers hear. Raises InputError for settings that fit mel features alone."""
    if not config.wav2vec2:
        return build(MelConfig, config.mel.to_dict())
    if config.data.windows.band_shift or config.data.windows.gain:
        raise InputError(
            "config.data.windows.band_shift and gain change mel features; set both to 0 to hear "
            "by config.wav2vec2"
        )
    return SpeechModel(Path(config.wav2vec2))


def description(hearing: MelConfig | SpeechModel) -> dict[str, Any]:
    """What a weights file says of it."""
    if isinstance(hearing, MelConfig):
        return {"mel": dataclasses.asdict(hearing)}
    return {"speech": {"digest": hearing.digest, "window": dataclasses.asdict(hearing.window)}}


def statistics(tracks: Sequence[Track]) -> dict[str, Float[np.ndarray, " d"]]:
    """Mean and spread (deviation) of all latents, and their deviation within clips.

    What differs between clips is mostly the person and the camera, which the portrait's latent
    tells; in units of the spread the motion itself would be lost in the noise. A latent that
    hardly moves counts as if it moved half as much as the mean one.
    """
    every = np.concatenate([track.latents for track in tracks])
    within = np.concatenate([t.latents - t.latents.mean(axis=0) for t in tracks])
    deviation = within.std(axis=0)
    floor = max(0.5 * float(deviation.mean()), 1e-4)
    return {
        "mean": every.mean(axis=0),
        "spread": np.maximum(every.std(axis=0), 1e-4),
        "deviation": np.maximum(deviation, floor),
    }


def correlation(acted: Float[np.ndarray, "n t d"], truth: Float[np.ndarray, "n t d"]) -> float:
    """Mean over clips and latents of the correlation in time, weighted by the latents' variance."""
    a = acted - acted.mean(axis=1, keepdims=True)
    b = truth - truth.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)) + 1e-9
    weights = (b**2).sum(axis=1)
    return float(np.sum((a * b).sum(axis=1) / scale * weights) / np.sum(weights))
