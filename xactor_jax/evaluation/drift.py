"""Minute by minute: whether long acting stays what it was at first.

Voices of synthetic actors that no training heard speak for minutes, and what is acted to them is
compared with motion latents of real clips, and with the script that each voice followed. What the
latents show (jaw, lids, head, emotion) is read by linear readers, fitted on training actors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import sqrtm
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xactor_jax.acting import perform
from xactor_jax.data.actor_motion import Motion, make_motion
from xactor_jax.data.audio_features import audio_features
from xactor_jax.data.direction import Told, felt, free, tell
from xactor_jax.data.facekit import EXPRESSION_INDEX
from xactor_jax.data.shards import FRAME_RATE, Clip, Shards, audio_to_float
from xactor_jax.evaluation.curves import correlation
from xactor_jax.evaluation.scenes import driving_crops, evenly
from xactor_jax.motion_sampler import MotionSampler, MotionSampling
from xactor_jax.release import PortraitRenderer

MINUTE = 60 * FRAME_RATE
WINDOW = 10 * FRAME_RATE  # over which deviations are taken, about as long as the real clips are
FELT = 0.3  # intensity from which an emotion counts
STRIDE = 5  # frames between those that readers are fitted on
FITTED_CLIPS = 120
TAKE = 20  # seconds; voices hold emotions as long as in the takes of docs/drift.md's actors
_SEED = 77  # of the scripts: another than that of any training's actors

Latents = Float[np.ndarray, "t d"]


@dataclasses.dataclass(frozen=True, eq=False)
class Readers:
    """What motion latents show: yaw, pitch, jaw, blink, and the emotion's number."""

    ridges: dict[str, Any]
    emotion: Any
    shut: float  # lids, as read, half way between open and shut ones; ridges shrink to the mean

    @classmethod
    def fit(cls, latents: Latents, targets: dict[str, np.ndarray], emotion: np.ndarray) -> Readers:
        """Ridge and logistic regression from latents to the truth of the same frames."""

        def ridge(target: np.ndarray) -> Any:
            return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13))).fit(
                latents, target
            )

        ridges = {name: ridge(target) for name, target in targets.items()}
        lids, shut = ridges["blink"].predict(latents), targets["blink"] > 0.5
        known = shut.any() and not shut.all()
        regression = LogisticRegression(max_iter=3000, class_weight="balanced")
        return cls(
            ridges,
            make_pipeline(StandardScaler(), regression).fit(latents, emotion),
            float(lids[shut].mean() + lids[~shut].mean()) / 2 if known else 0.5,
        )

    def read(self, name: str, latents: Latents) -> Float[np.ndarray, " t"]:
        """One of the ridges' targets."""
        return self.ridges[name].predict(latents)


@dataclasses.dataclass(frozen=True, eq=False)
class Real:
    """Latents of real clips: their distribution, and how much they move."""

    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]
    deviation: float  # within `WINDOW` frames
    velocity: float  # a frame

    @classmethod
    def of(cls, clips: Sequence[Latents]) -> Real:
        """Of whole clips."""
        every = np.concatenate(clips)
        return cls(every.mean(axis=0), np.cov(every.T), deviation(clips), velocity(clips))


def frechet(
    mean: Float[np.ndarray, " d"],
    covariance: Float[np.ndarray, "d d"],
    other_mean: Float[np.ndarray, " d"],
    other_covariance: Float[np.ndarray, "d d"],
) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson and Landau, 1982)."""
    cross = np.real(sqrtm(covariance @ other_covariance))
    apart = np.sum((mean - other_mean) ** 2)
    return float(apart + np.trace(covariance + other_covariance - 2 * cross))


def deviation(clips: Sequence[Latents]) -> float:
    """Root mean squared deviation within windows; what is left of a clip counts if half as long."""
    parts = [
        clip[start : start + WINDOW]
        for clip in clips
        for start in range(0, len(clip), WINDOW)
        if 2 * len(clip[start : start + WINDOW]) >= WINDOW
    ]
    return float(np.sqrt(np.mean([part.var(axis=0).mean() for part in parts])))


def velocity(clips: Sequence[Latents]) -> float:
    """Root mean squared change from frame to frame."""
    return float(np.sqrt(np.mean(np.concatenate([np.diff(clip, axis=0) ** 2 for clip in clips]))))


def blinks(lids: Float[np.ndarray, " t"], threshold: float) -> int:
    """How often the lids shut."""
    shut = lids > threshold
    return int(np.sum(shut[1:] & ~shut[:-1]))


def scripts(count: int, minutes: int, advance: Callable[[int], None]) -> list[Motion]:
    """What the voices say and their actors do; raises InputError where espeak-ng is missing."""
    found = []
    for n in range(count):
        found.append(make_motion(f"drift-{n}", (_SEED, n), 60 * minutes, take_seconds=TAKE))
        advance(1)
    return found


def fit_readers(
    shards: Shards, renderer: PortraitRenderer, advance: Callable[[int], None]
) -> Readers:
    """From training actors with known truth."""
    chosen = evenly(len(shards), FITTED_CLIPS)
    latents, targets, emotion = [], [], []
    for i in chosen:
        clip = shards[i]
        advance(1)
        frames = np.arange(0, len(clip), STRIDE)
        crops = driving_crops(clip, frames.tolist(), renderer.config.encoder.image_size)
        latents.append(renderer.encode(crops))
        targets.append({name: values[frames] for name, values in targets_of(clip).items()})
        emotion.append(np.where(clip.intensity >= FELT, clip.emotion, 0)[frames])
    joined = {name: np.concatenate([each[name] for each in targets]) for name in targets[0]}
    return Readers.fit(np.concatenate(latents), joined, np.concatenate(emotion))


def targets_of(clip: Clip | Motion) -> dict[str, Float[np.ndarray, " t"]]:
    """What the ridges read, from the truth."""
    expression = np.asarray(clip.expression, np.float32)
    return {
        "yaw": clip.pose[:, 0],
        "pitch": clip.pose[:, 1],
        "jaw": expression[:, EXPRESSION_INDEX["jawOpen"]],
        "blink": clip.blink,
    }


def real_clips(
    shards: Shards, renderer: PortraitRenderer, advance: Callable[[int], None]
) -> list[Latents]:
    """Latents of every frame of held-out clips."""
    found = []
    for i in range(len(shards)):
        clip = shards[i]
        crops = driving_crops(clip, range(len(clip)), renderer.config.encoder.image_size)
        found.append(renderer.encode(crops))
        advance(1)
    return found


def act(
    sampler: MotionSampler,
    voices: Sequence[Motion],
    portraits: Float[np.ndarray, "b d"],
    sampling: MotionSampling,
    seed: int,
    advance: Callable[[int], None],
    direction: Told | None = None,
) -> Float[np.ndarray, "b t d"]:
    """Each voice acted by its portrait, a minute after the other.

    direction: what the performers are told, such as `announcements`.
    """
    features = np.stack(
        [audio_features(audio_to_float(v.audio), len(v), sampler.hearing) for v in voices]
    )
    return perform(
        sampler,
        features,
        portraits,
        jax.random.key(seed),
        sampling=sampling,
        direction=direction,
        piece=MINUTE,
        advance=lambda: advance(1),
    )


def announcements(voices: Sequence[Motion]) -> Told:
    """The scripts' emotions, told while the voices announce them; held ones are not told."""
    rows = np.stack([free(len(voice)) for voice in voices])
    for row, voice in zip(rows, voices, strict=True):
        tell(row, "emotion", felt(voice.emotion, voice.intensity))
        row[~voice.voiced] = 0
    return Told(rows)


def told_emotions(
    acted: Float[np.ndarray, "b t d"], voices: Sequence[Motion], readers: Readers
) -> dict[str, list[float]]:
    """One number a minute of how performances that were told `announcements` show and hold them."""
    found: dict[str, list[float]] = {"told_announced": [], "told_held": []}
    for part in _minutes(acted):
        shown = _emotions(readers.emotion, acted[:, part], voices, part)
        for ending in ("announced", "held"):
            found[f"told_{ending}"].append(shown[f"emotion_{ending}"])
    return found


def curves(
    acted: Float[np.ndarray, "b t d"], voices: Sequence[Motion], readers: Readers, real: Real
) -> dict[str, list[float]]:
    """One number a minute of everything that is measured on latents."""
    found: dict[str, list[float]] = {}
    for part in _minutes(acted):
        for name, value in _of_minute(acted[:, part], voices, part, readers, real).items():
            found.setdefault(name, []).append(value)
    return found


def _minutes(acted: Float[np.ndarray, "b t d"]) -> list[slice]:
    """The whole minutes' frames."""
    starts = range(0, acted.shape[1] - MINUTE + 1, MINUTE)
    return [slice(start, start + MINUTE) for start in starts]


def _of_minute(
    acted: Float[np.ndarray, "b t d"],
    voices: Sequence[Motion],
    part: slice,
    readers: Readers,
    real: Real,
) -> dict[str, float]:
    rows = acted.reshape(-1, acted.shape[-1])
    read = {name: [readers.read(name, each) for each in acted] for name in readers.ridges}
    truth = [{name: values[part] for name, values in targets_of(v).items()} for v in voices]
    emotion = _emotions(readers.emotion, acted, voices, part)
    return {
        "frechet": frechet(rows.mean(axis=0), np.cov(rows.T), real.mean, real.covariance),
        "deviation_ratio": deviation(list(acted)) / real.deviation,
        "velocity_ratio": velocity(list(acted)) / real.velocity,
        "mouth_r": float(
            np.mean([correlation(a, t["jaw"]) for a, t in zip(read["jaw"], truth, strict=True)])
        ),
        **emotion,
        "yaw_range": float(np.degrees(np.mean([_range(yaw) for yaw in read["yaw"]]))),
        "yaw_range_true": float(np.degrees(np.mean([_range(t["yaw"]) for t in truth]))),
        "pitch_range": float(np.degrees(np.mean([_range(pitch) for pitch in read["pitch"]]))),
        "pitch_range_true": float(np.degrees(np.mean([_range(t["pitch"]) for t in truth]))),
        "blinks": float(np.mean([blinks(lids, readers.shut) for lids in read["blink"]])),
        "blinks_true": float(np.mean([blinks(t["blink"], 0.5) for t in truth])),
    }


def _range(values: Float[np.ndarray, " t"]) -> float:
    low, high = np.quantile(values, [0.05, 0.95])
    return float(high - low)


def _emotions(
    reader: Any, acted: Float[np.ndarray, "b t d"], voices: Sequence[Motion], part: slice
) -> dict[str, float]:
    """Share of frames with the script's emotion: while the voice announces it, and while held."""
    hits: dict[str, list[np.ndarray]] = {"announced": [], "held": []}
    for latents, voice in zip(acted, voices, strict=True):
        felt = voice.intensity[part] >= FELT
        right: Int[np.ndarray, " t"] = reader.predict(latents) == voice.emotion[part]
        hits["announced"].append(right[felt & voice.voiced[part]])
        hits["held"].append(right[felt & ~voice.voiced[part]])
    joined = {name: np.concatenate(found) for name, found in hits.items()}
    return {
        f"emotion_{name}": float(found.mean()) if len(found) else float("nan")
        for name, found in joined.items()
    }


def recognised(readers: Readers, shards: Shards, clips: Sequence[Latents]) -> float:
    """Share of frames of real clips whose emotion is read right, where there is one."""
    right = []
    for i, latents in enumerate(clips):
        clip = shards[i]
        felt = clip.intensity >= FELT
        right.append((readers.emotion.predict(latents) == clip.emotion)[felt])
    return float(np.concatenate(right).mean())


def summary(minutes: dict[str, list[float]]) -> dict[str, float]:
    """The last minute against the first, and the extremes."""
    return {
        "frechet_ratio": minutes["frechet"][-1] / minutes["frechet"][0],
        "mouth_ratio": minutes["mouth_r"][-1] / minutes["mouth_r"][0],
        **{
            f"{name}_{word}": float(choose(minutes[f"{name}_ratio"]))
            for name in ("deviation", "velocity")
            for word, choose in (("least", np.min), ("most", np.max))
        },
        **{
            name: float(np.nanmean(minutes[name]))
            for name in ("emotion_announced", "emotion_held", "told_announced", "told_held")
            if name in minutes
        },
    }
