"""How far heads are turned: fit the estimate of preparation on rendered actors, and measure it.

    python -m experiments.yaw fit --facekit=FILE_OR_CHECKOUT
    python -m experiments.yaw measure --facekit=FILE_OR_CHECKOUT --footage=data/raw

`fit` renders 150 actors that turn from the front to a profile and writes
`xactor_jax/preparation/yaw.npy`. `measure` renders the 30 others, turned by known angles, and tells
what the estimate says of them, and of footage that is prepared.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from xactor_jax.command import Parser, run
from xactor_jax.data import actors
from xactor_jax.data.actor_look import Look, rotation
from xactor_jax.data.actor_motion import Motion, make_motion
from xactor_jax.data.actor_render import render
from xactor_jax.data.shards import FRAME_RATE
from xactor_jax.errors import InputError
from xactor_jax.preparation import pose
from xactor_jax.preparation.clips import Prepared, prepare_file
from xactor_jax.preparation.footage import find_films
from xactor_jax.preparation.settings import Settings, changed
from xactor_jax.progress import progress

IDENTITIES = range(150)  # to fit on
OTHERS = range(150, 180)  # to measure with
PROFILE = 80.0  # degrees
ANGLES = (0, 15, 30, 45, 60, 75)
SIZE = 192
_SECONDS = 2.4
_RIDGE = 100.0
_MISPLACED = 0.05  # of a side, the deviation of the boxes, which trackers do not put exactly
_VIEWS = 4  # of each actor and angle to measure with
# Nothing else is to refuse a clip; a face that is not found cannot be measured.
_OPEN = tuple(f"quality.{name}=0" for name in ("blur", "dark", "contrast", "static")) + tuple(
    f"{name}=1" for name in ("quality.occluded", "quality.turned", "quality.overlay", "sound.music")
)


def act(
    facekit: str, identity: int, turn: Float[np.ndarray, " t"]
) -> tuple[Motion, Look, Float[np.ndarray, " t"]]:
    """An actor who speaks while turned by `turn` radians, and the degrees that the camera sees."""
    look = actors.look_of_identity(facekit, 0, identity)
    motion = make_motion("turn", (11, identity), len(turn) / FRAME_RATE)
    bearing = motion.pose.copy()
    bearing[:, 0] = turn + 0.3 * (bearing[:, 0] - bearing[:, 0].mean())
    forward = np.stack([look.camera @ rotation(*row)[:, 2] for row in bearing[:, :3].astype(float)])
    yaws = np.degrees(np.arctan2(forward[:, 0], forward[:, 2]))
    return dataclasses.replace(motion, pose=bearing), look, yaws


def examples(facekit: str, identity: int) -> Iterator[tuple[np.ndarray, float]]:
    """Features and yaw in degrees of an actor who turns from the front to a profile."""
    random = np.random.default_rng((12, identity))
    frames = round(_SECONDS * FRAME_RATE)
    turn = random.choice([-1, 1]) * np.radians(np.linspace(0, PROFILE, frames))
    motion, look, yaws = act(facekit, identity, turn)
    views, boxes = render(motion, look, actors.head_of_kit(facekit), SIZE)
    for view, box, yaw in zip(views, boxes, yaws, strict=True):
        box = box + random.normal(0, _MISPLACED, 3) * box[2]
        yield pose.features(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), box), yaw


def fit(facekit: str) -> Float[np.ndarray, "900"]:
    """Ridge regression from features to degrees, without a constant: a mirror image is -yaw."""
    pairs = []
    with progress("turning", len(IDENTITIES), "actors") as advance:
        for identity in IDENTITIES:
            pairs += examples(facekit, identity)
            advance(1)
    seen, yaws = np.stack([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    return np.linalg.solve(seen.T @ seen + _RIDGE * np.eye(seen.shape[1]), seen.T @ yaws)


def measured(path: Path, settings: Settings) -> float | None:
    """The yaw that preparation finds in the longest stretch of a file; None without a face."""
    try:
        results = list(prepare_file(path, path.name, "", settings))
    except InputError:
        return None
    checked = [one for one in results if isinstance(one, Prepared) or "yaw" in one.checks]
    longest = max(checked, key=lambda one: one.end_seconds - one.start_seconds, default=None)
    return longest.checks["yaw"] if longest else None


def of_actors(facekit: str, threshold: float) -> dict[str, dict[str, float]]:
    """For every angle: how many of the actors are refused, and the estimate's error in degrees."""
    random, rows = np.random.default_rng(13), {}
    with progress("turning", len(ANGLES) * len(OTHERS), "actors") as advance:
        for angle in ANGLES:
            found, known = [], []
            for identity in OTHERS:
                turn = np.full(_VIEWS, (-1) ** identity * np.radians(angle))
                motion, look, yaws = act(facekit, identity, turn)
                views, boxes = render(motion, look, actors.head_of_kit(facekit), SIZE)
                boxes = boxes + random.normal(0, _MISPLACED, boxes.shape) * boxes[:, 2:]
                estimates = [
                    pose.yaw(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), box)
                    for view, box in zip(views, boxes, strict=True)
                ]
                found.append(float(np.mean(estimates)))
                known.append(float(yaws.mean()))
                advance(1)
            errors, sides = np.subtract(found, known), np.abs(found) - np.abs(known)
            rows[f"{angle} degrees"] = {
                "refused": float(np.mean(np.abs(found) > threshold)),
                "error": float(np.sqrt(np.mean(errors**2))),
                "too large by": float(np.mean(sides)),
                "largest": float(np.abs(found).max()),
            }
    return rows


def of_footage(folder: Path, most: int, settings: Settings, threshold: float) -> dict[str, float]:
    """The yaws of clips that are good."""
    yaws = [measured(one.path, settings) for one in find_films(folder)[:most]]
    seen = np.array([yaw for yaw in yaws if yaw is not None])
    return {
        "clips": len(seen),
        "refused": float(np.mean(seen > threshold)),
        "median": float(np.median(seen)),
        "largest": float(seen.max()),
    }


def main() -> None:
    """Fit or measure."""
    parser = Parser(__doc__.split("\n")[0])
    parser.add_argument("what", choices=("fit", "measure"))
    parser.add_argument("--facekit", required=True, help="packed npz or ICT-FaceKit checkout")
    parser.add_argument("--footage", type=Path, action="append", default=[], help="good clips")
    parser.add_argument("--files", type=int, default=100, help="at most so many of each folder")
    parser.add_argument("--detector", default="", help="a face_detection_short_range.tflite")
    flags = parser.parse_args(sys.argv[1:])
    if flags.what == "fit":
        output = Path(pose.__file__).with_name("yaw.npy")
        np.save(output, fit(flags.facekit).astype(np.float16))
        print(output)
        return
    threshold = Settings().quality.yaw
    detector = [f"faces.detector={flags.detector}"] if flags.detector else []
    settings = changed(Settings(size=SIZE), [*_OPEN, "quality.yaw=180", *detector])
    found: dict[str, Any] = {"actors": of_actors(flags.facekit, threshold)}
    for folder in flags.footage:
        found[str(folder)] = of_footage(folder, flags.files, settings, threshold)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    run(main)
