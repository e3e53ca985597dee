"""What can be read off the motion latent by linear probes: the motion, and whose face it is.

Actors that no training saw are read. Yardsticks are the same probes on 12x12 grey pixels of the
driving crop and, for the identity, on the true motion: each actor has only a few performances, so
that even a latent without any identity says a little about who it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xactor_jax.data.facekit import EXPRESSION_INDEX
from xactor_jax.data.shards import Clip, Shards
from xactor_jax.errors import InputError
from xactor_jax.evaluation.curves import correlation
from xactor_jax.evaluation.scenes import driving_crops
from xactor_jax.release import PortraitRenderer

STRIDE = 5  # frames between those that are read
FOLDS = 5
PIXELS = 12
EXPRESSIONS = {
    "jaw": ("jawOpen",),
    "smile": ("mouthSmile_L", "mouthSmile_R"),
    "blink": ("eyeBlink_L", "eyeBlink_R"),
    "inner brows": ("browInnerUp_L", "browInnerUp_R"),
    "lowered brows": ("browDown_L", "browDown_R"),
}
POSES = ("yaw", "pitch", "roll")


@dataclasses.dataclass(frozen=True, eq=False)
class Readings:
    """One row a frame of all clips."""

    latents: Float[np.ndarray, "n d"]
    pixels: Float[np.ndarray, "n p"]
    motions_truth: Float[np.ndarray, "n m"]  # expression, head pose and gaze
    targets: dict[str, Float[np.ndarray, " n"]]
    identity: Int[np.ndarray, " n"]
    motion: Int[np.ndarray, " n"]
    time: Float[np.ndarray, " n"]  # 0 to 1 through the take


def targets_of(clip: Clip) -> dict[str, Float[np.ndarray, " t"]]:
    """What the probes are to read, from the clip's truth."""
    found = {name: clip.pose[:, k] for k, name in enumerate(POSES)}
    for name, columns in EXPRESSIONS.items():
        chosen = clip.expression[:, [EXPRESSION_INDEX[column] for column in columns]]
        found[name] = chosen.astype(np.float32).mean(axis=1)
    return found


def grey_pixels(crops: np.ndarray) -> Float[np.ndarray, "n p"]:
    """Driving crops (n, c, c, 3) as 12x12 grey pixels in [0, 1]."""
    small = [
        cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (PIXELS,) * 2, interpolation=3)
        for crop in crops
    ]
    return np.reshape(small, (len(crops), -1)).astype(np.float32) / 255


def read_actors(
    shards: Shards, renderer: PortraitRenderer, advance: Callable[[int], None]
) -> Readings:
    """Every fifth frame of every actor clip that has its truth.

    Raises InputError when there are fewer identities than folds.
    """
    names: dict[str, int] = {}
    motions: dict[str, int] = {}
    parts = []
    lengths: dict[str, int] = {}
    for i in range(len(shards)):
        header = shards.header(i)
        lengths[header.clip] = max(lengths.get(header.clip, 0), header.start + header.length)
    for i in range(len(shards)):
        clip = shards[i]
        advance(1)
        if not len(clip.expression) or not len(clip.pose):
            continue
        frames = np.arange(0, len(clip), STRIDE)
        crops = driving_crops(clip, frames.tolist(), renderer.config.encoder.image_size)
        truth = [clip.expression, clip.pose[:, :3], clip.gaze]
        parts.append(
            {
                "latents": renderer.encode(crops),
                "pixels": grey_pixels(crops),
                "motions_truth": np.concatenate(truth, axis=1, dtype=np.float32)[frames],
                "identity": np.full(len(frames), names.setdefault(clip.identity, len(names))),
                "motion": np.full(len(frames), motions.setdefault(clip.motion, len(motions))),
                "time": (clip.start + frames) / lengths[clip.clip],
                **{name: values[frames] for name, values in targets_of(clip).items()},
            }
        )
    if len(names) < FOLDS:
        found = f"{len(names)} actors with known motion in split {shards.split!r}"
        raise InputError(f"{shards.folder}: {found}; the probes need {FOLDS}")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    targets = {name: joined.pop(name) for name in (*POSES, *EXPRESSIONS)}
    return Readings(**joined, targets=targets)


def folds(
    identity: Int[np.ndarray, " n"], motion: Int[np.ndarray, " n"], seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit and rows to test: neither identities nor motions of one are in the other."""
    order = np.random.default_rng(seed).permutation(np.unique(identity))
    for chosen in np.array_split(order, FOLDS):
        test = np.isin(identity, chosen)
        fit = ~test & ~np.isin(motion, motion[test])
        if fit.any():
            yield np.flatnonzero(fit), np.flatnonzero(test)


def probe(
    features: Float[np.ndarray, "n d"],
    target: Float[np.ndarray, " n"],
    identity: Int[np.ndarray, " n"],
    motion: Int[np.ndarray, " n"],
    seed: int = 0,
) -> float:
    """r of ridge regression on identities it was not fitted on, all folds' rows together."""
    rows, values = [], []
    for fit, test in folds(identity, motion, seed):
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))
        values.append(ridge.fit(features[fit], target[fit]).predict(features[test]))
        rows.append(test)
    return correlation(np.concatenate(values), target[np.concatenate(rows)])


def identity_probe(
    features: Float[np.ndarray, "n d"],
    identity: Int[np.ndarray, " n"],
    time: Float[np.ndarray, " n"],
) -> float:
    """Accuracy of logistic regression, fitted on takes' first halves, on their second halves.

    Every identity counts the same, however many takes it has, so chance is one over their number.
    """
    early = time < 0.5
    regression = LogisticRegression(max_iter=3000, class_weight="balanced")
    reader = make_pipeline(StandardScaler(), regression).fit(features[early], identity[early])
    return float(balanced_accuracy_score(identity[~early], reader.predict(features[~early])))


def probes(
    shards: Shards, renderer: PortraitRenderer, advance: Callable[[int], None], *, seed: int
) -> dict[str, Any]:
    """r of every probe on the latent and on pixels, and how well each tells the identity."""
    found = read_actors(shards, renderer, advance)
    numbers: dict[str, Any] = {}
    for name, features in (("", found.latents), ("_pixels", found.pixels)):
        for target, values in found.targets.items():
            r = probe(features, values, found.identity, found.motion, seed)
            numbers[f"{target.replace(' ', '_')}{name}"] = r
        both = (numbers[f"inner_brows{name}"], numbers[f"lowered_brows{name}"])
        numbers[f"brows{name}"] = float(np.mean(both))
        numbers[f"identity{name}"] = identity_probe(features, found.identity, found.time)
    numbers["identity_true_motion"] = identity_probe(
        found.motions_truth, found.identity, found.time
    )
    identities = len(np.unique(found.identity))
    numbers["chance"] = 1 / identities
    numbers["n"] = {"identities": identities, "frames": len(found.identity)}
    return numbers
