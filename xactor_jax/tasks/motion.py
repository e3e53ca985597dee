"""Learn to act: the motion transformer by diffusion forcing, on latents of the trained encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from einops import repeat
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.acting import Acting
from xactor_jax.checkpoint import save_weights
from xactor_jax.config import build
from xactor_jax.data.audio_features import MelConfig
from xactor_jax.data.direction import WIDTH
from xactor_jax.data.latents import MotionExamples, Track, cached_tracks
from xactor_jax.diffusion.noise_levels import Forcing, doubled_mask
from xactor_jax.diffusion.processes import Flow
from xactor_jax.errors import InputError
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.motion_sampler import MotionSampler, MotionSampling, heard_audio
from xactor_jax.nn.layers import abstract, initial_keys
from xactor_jax.release import PortraitRenderer

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionLoss:
    """Probabilities of the loss; every value is our default, none is published."""

    drop_audio: float = 0.1
    drop_reference: float = 0.2


class MotionTask:
    """Task `motion` of the training loop."""

    def __init__(self, config: Any):
        if not config.renderer:
            raise InputError("config.renderer is empty; give the weights of an autoencoder")
        renderer = PortraitRenderer(Path(config.renderer))
        self.encoder = renderer.encoder
        self.mel = build(MelConfig, config.mel.to_dict())
        self.config = MotionTransformerConfig(
            latent=renderer.config.encoder.latent,
            audio=self.mel.width,
            direction=WIDTH,
            **config.motion.to_dict(),
        )
        self.flow = build(Flow, config.flow.to_dict())
        self.forcing = build(Forcing, config.forcing.to_dict())
        self.weights = build(MotionLoss, config.loss.to_dict())
        self.sampling = build(MotionSampling, config.sampling.to_dict())
        self.weights_dtype = config.weights_dtype

        def tracks(split: str) -> list[Track]:
            size = renderer.config.encoder.image_size
            cache, folders = config.data.cache, config.data.folders
            return cached_tracks(
                cache, renderer.encoder, folders, split, renderer.encode, size, self.mel
            )

        train = tracks("train")
        self.frozen = statistics(train)
        self.examples = MotionExamples(
            train,
            self.config.context,
            self.config.audio_window,
            bands=self.mel.bands,
            **config.data.windows.to_dict(),
        )
        self.held_out = [track for track in tracks("test") if len(track.latents) >= 50]
        if not self.held_out:
            folders = ", ".join(config.data.folders)
            raise InputError(f"{folders}: no test clip of 50 frames; prepare longer ones")
        model = abstract(lambda rngs: MotionTransformer(self.config, rngs=rngs))
        self.graph = nnx.split(model, nnx.Param, ...)[0]

    def init(self, key: PRNGKeyArray) -> Any:
        """New parameters."""
        model = MotionTransformer(self.config, rngs=initial_keys(key))
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    def source(self) -> MotionExamples:
        """The index of windows."""
        return self.examples

    def load(self, element: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Cut one window."""
        return self.examples.load(element, rng)

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Velocity loss of the noisy half of doubled sequences (diffusion/noise_levels.py)."""
        c = self.config
        level_key, noise_key, history_key, audio_key, reference_key = jax.random.split(key, 5)
        origin = batch["reference"][:, None] if c.relative else frozen["mean"]
        x = (batch["latents"] - origin) / frozen["deviation"]
        reference = (batch["reference"] - frozen["mean"]) / frozen["spread"]
        b, t, _ = x.shape
        levels = self.forcing.levels(level_key, b, t // c.chunk)

        def of_frames(chunks: Float[Array, "b chunks"]) -> Float[Array, "b t"]:
            return repeat(chunks, "b j -> b (j c)", c=c.chunk)

        noise = jax.random.normal(noise_key, x.shape)
        noisy = self.flow.corrupt(x, noise, of_frames(levels.noisy))
        past = jax.random.normal(history_key, x.shape)
        # A label without noise still scales the data, as the sampler presents finished chunks.
        added, label = of_frames(levels.history_noise), of_frames(levels.history_label)
        history = (1 - label)[..., None] * x + added[..., None] * past

        heard = heard_audio(c, batch["audio_known"])
        dropped = jax.random.bernoulli(audio_key, self.weights.drop_audio, (b, 1, 1))
        seen = ~jax.random.bernoulli(reference_key, self.weights.drop_reference, (b,))
        output = nnx.merge(self.graph, params)(
            jnp.concatenate([history, noisy], axis=1),
            jnp.concatenate([label, of_frames(levels.noisy)], axis=1),
            jnp.tile(jnp.arange(t), (b, 2)),
            doubled_mask(t, c.chunk, levels.clean_history),
            batch["audio"],
            jnp.tile(heard & ~dropped, (1, 2, 1)),
            reference,
            seen,
            jnp.tile(batch["direction"], (1, 2, 1)),
        )[:, t:]
        level = of_frames(levels.noisy)
        error = jnp.mean(self.flow.squared_error(output, x, noise, level), axis=-1)
        # Chunks of a staircase that are already clean teach nothing.
        counted = level > 0
        loss = jnp.sum(error * counted) / jnp.maximum(jnp.sum(counted), 1)
        clean = jnp.mean((self.flow.sample(output, noisy, level) - x) ** 2, axis=-1)
        pure = level > 0.95
        from_noise = jnp.sum(clean * pure) / jnp.maximum(jnp.sum(pure), 1)
        return loss, {"error_from_noise": from_noise}

    def _perform(
        self, params: Any, tracks: list[Track], heard: list[Track], key: PRNGKeyArray
    ) -> np.ndarray:
        """Latents (n, t, d) acted to the audio of `heard`, each from its track's first frame."""
        sampler = MotionSampler(self.config, self.mel, self.flow, params, self.frozen)
        first = np.stack([track.latents[0] for track in tracks])
        acting = Acting(sampler, first, key, sampling=self.sampling, batch=len(tracks))
        length = min(len(t.latents) for t in [*tracks, *heard])
        audio = np.stack([track.audio[:length] for track in heard])
        return np.concatenate([acting.push(audio), acting.finish()], axis=1)

    def evaluate(self, params: Any, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        """Correlation of acted with true latents, to the right audio and to another clip's."""
        numbers = {}
        for source in ("footage", "actor"):
            tracks = [track for track in self.held_out if track.source == source][:16]
            if len(tracks) < 2:
                continue
            for name, heard in (("right", tracks), ("wrong", tracks[1:] + tracks[:1])):
                acted = self._perform(params, tracks, heard, key)
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
        acted = self._perform(params, tracks, tracks, key)
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
            "motion": dataclasses.asdict(self.config),
            "mel": dataclasses.asdict(self.mel),
            "flow": dataclasses.asdict(self.flow),
            "sampling": dataclasses.asdict(self.sampling),
        }
        weights = {"params": params, "statistics": frozen}
        save_weights(path, weights, metadata, self.weights_dtype)


def statistics(tracks: list[Track]) -> dict[str, Float[np.ndarray, " d"]]:
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
