"""Whether the mouth follows the voice: held-out clips acted from their sound alone, and rendered.

Baselines are another clip's sound, which tells how much of the agreement is only the habit of the
recordings, and ridge regression from the spectrogram to the mouth opening.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xactor_jax.data.audio_features import MelConfig, audio_features
from xactor_jax.data.shards import Shards
from xactor_jax.evaluation.curves import (
    best_lag,
    correlation,
    correlation_at_lags,
    deviation_ratio,
)
from xactor_jax.evaluation.mouth import MouthMeter
from xactor_jax.evaluation.scenes import Scene, footage_clips, scene_of
from xactor_jax.generate import Portrait, Stopwatch, perform
from xactor_jax.models.renderer import RendererConfig, Sampling
from xactor_jax.motion_sampler import MotionSampler, MotionSampling
from xactor_jax.progress import progress
from xactor_jax.release import PortraitRenderer

MOST_LAG = 5
TRAINING_CLIPS = 64  # that the ridge regression is fitted on
REACH = 6  # frames before and after that it hears
SHORTEST = 25  # frames of a usable clip
_SHOWN = 4

Perform = Callable[[Scene, Float[np.ndarray, " samples"], int], UInt8[np.ndarray, "t s s 3"]]
"""(who acts, the sound, how many frames) -> the performance."""


def performer(
    renderer: PortraitRenderer,
    sampler: MotionSampler,
    *,
    seed: int,
    sampling: Sampling,
    acting: MotionSampling,
) -> Perform:
    """Acting and rendering as generation does it."""

    def act(scene: Scene, audio: np.ndarray, frames: int) -> np.ndarray:
        performance = perform(
            Portrait(scene.pictures[0], scene.crops[0]),
            audio_features(audio, frames, sampler.hearing),
            renderer,
            sampler,
            seed=seed,
            sampling=sampling,
            acting=acting,
            stopwatch=Stopwatch(),
        )
        return np.stack(list(performance))

    return act


def still_box(scene: Scene, frames: int) -> Float[np.ndarray, "t 3"]:
    """The reference's head box for every frame: a performance leaves the head where it is."""
    return np.repeat(scene.head_box[:1], frames, axis=0)


def mel_windows(
    features: Float[np.ndarray, "t f"], mel: MelConfig, reach: int = REACH
) -> Float[np.ndarray, "t w"]:
    """The spectrogram of each frame and of `reach` frames before and after it; ends repeat."""
    bands = features.reshape(len(features), mel.hops, mel.bands).mean(axis=1)
    places = np.arange(len(features))[:, None] + np.arange(-reach, reach + 1)
    return bands[np.clip(places, 0, len(features) - 1)].reshape(len(features), -1)


def fit_ridge(
    windows: Sequence[Float[np.ndarray, "t w"]], openings: Sequence[Float[np.ndarray, " t"]]
) -> Any:
    """Ridge regression from `mel_windows` of clips to their mouth openings."""
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 13)))
    return ridge.fit(np.concatenate(windows), np.concatenate(openings))


def heard_and_seen(
    shards: Shards, config: RendererConfig, mel: MelConfig, meter: MouthMeter, cache: Path
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """`mel_windows` and true openings of training clips; openings are kept in the file `cache`."""
    clips = footage_clips(shards, TRAINING_CLIPS, SHORTEST)
    windows = []
    for clip in clips:
        scene = scene_of(clip, config, [0])
        windows.append(mel_windows(audio_features(scene.audio, len(clip), mel), mel))
    made_of = (str(shards.folder.resolve()), config.image_size, config.view_scale)
    names = [(clip.id, len(clip), clip.frames[0][:4096]) for clip in clips]
    digest = hashlib.sha256(repr((made_of, names)).encode()).hexdigest()
    if cache.is_file():
        with np.load(cache) as kept:
            if str(kept["digest"]) == digest:
                return windows, np.split(kept["openings"], kept["ends"][:-1])
    openings = []
    with progress("mouths of training clips", len(clips), "clips") as advance:
        for clip in clips:
            scene = scene_of(clip, config)
            openings.append(meter(scene.pictures, scene.head_box))
            advance(1)
    ends = np.cumsum([len(opening) for opening in openings])
    np.savez(cache, digest=digest, openings=np.concatenate(openings), ends=ends)
    return windows, openings


def footage(
    scenes: Sequence[Scene],
    openings: Sequence[Float[np.ndarray, " t"]],
    act: Perform,
    meter: MouthMeter,
    ridge: Any,
    mel: MelConfig,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Held-out clips acted from their own and from another clip's sound.

    Args:
      openings: true mouth openings of the scenes.
      ridge: of `fit_ridge`.

    Returns:
      r with the true opening (mean over clips) for both sounds and for the regression, the best
      lag in frames (positive: the rendered mouth is late) and the amplitude against the truth.
    """
    found: dict[str, list[np.ndarray]] = {"right": [], "wrong": [], "ridge": []}
    for i, scene in enumerate(scenes):
        length, other = len(scene), scenes[(i + 1) % len(scenes)]
        for name, audio in (("right", scene.audio), ("wrong", other.audio)):
            frames = act(scene, audio, length)
            found[name].append(meter(frames, still_box(scene, length)))
            advance(length)
        windows = mel_windows(audio_features(scene.audio, length, mel), mel)
        found["ridge"].append(ridge.predict(windows))
    r = {
        name: [correlation(a, b) for a, b in zip(curves, openings, strict=True)]
        for name, curves in found.items()
    }
    pairs = zip(found["right"], openings, strict=True)
    lags = np.mean([correlation_at_lags(a, b, MOST_LAG) for a, b in pairs], axis=0)
    means = {name: float(np.mean(values)) for name, values in r.items()}
    return {
        **means,
        "right_deviation": float(np.std(r["right"])),
        "gap": means["right"] - means["wrong"],
        "best_lag": best_lag(lags),
        "amplitude": deviation_ratio(found["right"], openings),
        "ridge_amplitude": deviation_ratio(found["ridge"], openings),
        "n": {"clips": len(scenes), "frames": sum(map(len, scenes))},
        "lags": lags.tolist(),
        "curves": [
            {"clip": scene.name, "true": openings[i].tolist()}
            | {name: curves[i].tolist() for name, curves in found.items()}
            for i, scene in enumerate(scenes[:_SHOWN])
        ],
    }
