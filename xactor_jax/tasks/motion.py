"""Learn to act: the motion transformer by diffusion forcing, on latents of the trained encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from xactor_jax.acting import perform
from xactor_jax.checkpoint import save_weights
from xactor_jax.config import build, released
from xactor_jax.data.audio_features import MelConfig
from xactor_jax.data.latents import MotionExamples, cached_tracks
from xactor_jax.data.shards import held_out_split
from xactor_jax.data.speech_features import SpeechModel
from xactor_jax.data.tracks import Track, Tracks
from xactor_jax.errors import InputError
from xactor_jax.motion_sampler import MotionSampler
from xactor_jax.release import renderer_at
from xactor_jax.sharding import to_host
from xactor_jax.tasks.motion_objective import MotionObjective

_SHORTEST = 50  # frames of a clip that is measured


class MotionTask(MotionObjective):
    """Task `motion` of the training loop."""

    def __init__(self, config: Any):
        if not config.renderer:
            raise InputError("config.renderer is empty; give the weights of an autoencoder")
        renderer = renderer_at(config.renderer)
        self.encoder = renderer.encoder
        super().__init__(config, renderer.config.encoder.latent, hearing_of(config))
        self.weights_dtype = config.weights_dtype
        self._sampler: MotionSampler | None = None

        def tracks(chosen: Sequence[tuple[str, str]]) -> Tracks:
            size, cache = renderer.config.encoder.image_size, config.data.cache
            return cached_tracks(
                cache, renderer.encoder, chosen, renderer.encode, size, self.hearing
            )

        folders = config.data.folders
        train = tracks([(folder, "train") for folder in folders])
        self.frozen = statistics(train)
        self.examples = MotionExamples(
            train,
            self.config.context,
            self.config.audio_window,
            bands=config.mel.bands,
            **config.data.windows.to_dict(),
        )
        # Of two, each is acted to the other's voice as well.
        held_out = tracks([(folder, held_out_split(folder, _SHORTEST, 2)) for folder in folders])
        self.held_out = [track for track in held_out if len(track.latents) >= _SHORTEST]
        if not self.held_out:
            raise InputError(
                f"{', '.join(folders)}: no test clip of {_SHORTEST} frames; prepare longer ones"
            )

    def source(self) -> MotionExamples:
        """The index of windows."""
        return self.examples

    def load(self, element: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Cut one window."""
        return self.examples.load(element, rng)

    def _performer(self, params: Any, frozen: Any) -> MotionSampler:
        """The same for all evaluations, so that what it compiles is compiled once."""
        if self._sampler is None:
            self._sampler = MotionSampler(
                self.config, self.hearing, self.flow, params, to_host(frozen)
            )
        self._sampler.weights = params
        return self._sampler

    def _perform(
        self,
        params: Any,
        frozen: Any,
        tracks: list[Track],
        heard: list[Track],
        key: PRNGKeyArray,
    ) -> np.ndarray:
        """Latents (n, t, d) acted to the audio of `heard`, each from its track's first frame."""
        sampler = self._performer(params, frozen)
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
