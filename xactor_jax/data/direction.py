"""What a performer can be told, frame by frame: emotion, head pose, gaze, blinks and stillness.

One row of numbers a frame: the values, zero where nothing is told, then a flag for each kind that
says whether it is. What is not told is acted freely.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from xactor_jax.data.shards import EMOTIONS, FRAME_RATE, Clip

# Kinds, told and left free on their own, and how many numbers each has.
KINDS = {
    "emotion": len(EMOTIONS) - 1,
    "yaw": 1,
    "pitch": 1,
    "roll": 1,
    "gaze": 2,
    "blink": 1,
    "stillness": 1,
}
VALUES = sum(KINDS.values())
WIDTH = VALUES + len(KINDS)
ANGLE = np.radians(10).astype(np.float32)  # what counts as 1, so that all numbers are of one size
_ENDS = np.cumsum(list(KINDS.values()))
COLUMNS = {
    kind: slice(int(end) - width, int(end))
    for (kind, width), end in zip(KINDS.items(), _ENDS, strict=True)
}
FLAGS = {kind: VALUES + k for k, kind in enumerate(KINDS)}
# Every column of a kind: its values and its flag.
ALL_OF = {kind: [*range(VALUES)[COLUMNS[kind]], FLAGS[kind]] for kind in KINDS}

LIVELY = np.radians(30)  # head rotation a second, at which stillness is 0
_STILL_OVER = 1.0  # seconds over which the rotation is averaged

Rows = Float[np.ndarray, "t w"]


def free(frames: int) -> Rows:
    """Nothing told."""
    return np.zeros((frames, WIDTH), np.float32)


def tell(
    rows: Rows, kind: str, values: float | Float[np.ndarray, "..."], frames: slice | None = None
) -> None:
    """Set a kind in some frames, in place; angles are in radians, all else in 0 to 1."""
    unit = ANGLE if kind in ("yaw", "pitch", "roll", "gaze") else 1.0
    where = slice(None) if frames is None else frames
    width = KINDS[kind]
    rows[where, COLUMNS[kind]] = np.reshape(np.asarray(values, np.float32) / unit, (-1, width))
    rows[where, FLAGS[kind]] = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Told:
    """Directions for recordings all of whose frames are known; nothing is told after them."""

    rows: Float[np.ndarray, "*b t w"]

    def frames(self, start: int, stop: int) -> Float[np.ndarray, "*b n w"]:
        """What is told in the frames from `start` to before `stop`."""
        known = self.rows[..., start:stop, :]
        missing = stop - start - known.shape[-2]
        return np.pad(known, [(0, 0)] * (known.ndim - 2) + [(0, missing), (0, 0)])


def felt(emotion: int | np.ndarray, intensity: float | np.ndarray) -> Float[np.ndarray, "..."]:
    """Values of the kind `emotion`: the intensity in the emotion's place; neutral has none."""
    intensity = np.asarray(intensity, np.float32)[..., None]
    return intensity * (np.arange(1, len(EMOTIONS)) == np.asarray(emotion)[..., None])


def stillness(pose: Float[np.ndarray, "t 3"]) -> Float[np.ndarray, " t"]:
    """1 where the head rests, 0 where it turns by `LIVELY` a second or more, over a second.

    pose: yaw, pitch and roll in radians.
    """
    speed = np.linalg.norm(np.gradient(pose, axis=0), axis=1) * FRAME_RATE if len(pose) > 1 else [0]
    width = round(_STILL_OVER * FRAME_RATE)
    padded = np.pad(speed, width // 2, mode="edge")
    mean = np.convolve(padded, np.ones(width) / width, mode="valid")[: len(pose)]
    return np.clip(1 - mean / LIVELY, 0, 1).astype(np.float32)


def direction_of(clip: Clip) -> Rows:
    """All that is known of a clip; of footage, which comes without truth, nothing."""
    rows = free(len(clip))
    if len(clip.emotion):
        tell(rows, "emotion", felt(clip.emotion, clip.intensity))
    if len(clip.pose):
        for k, kind in enumerate(("yaw", "pitch", "roll")):
            tell(rows, kind, clip.pose[:, k])
        tell(rows, "stillness", stillness(clip.pose[:, :3]))
    if len(clip.gaze):
        tell(rows, "gaze", clip.gaze)
    if len(clip.blink):
        tell(rows, "blink", clip.blink)
    return rows


def thinned(rows: Rows, rng: np.random.Generator, drop_all: float, drop_kind: float) -> Rows:
    """A part of what is known, as a user would tell it.

    With probability `drop_all` nothing is told. Otherwise each kind is left out with `drop_kind`,
    and half of those told are told in one stretch of the time only.
    """
    left = free(len(rows))
    if rng.random() < drop_all:
        return left
    for kind in KINDS:
        first, last = np.sort(rng.integers(0, len(rows) + 1, 2))
        told = slice(None) if rng.random() < 0.5 else slice(first, last)
        if rng.random() >= drop_kind:
            left[told, ALL_OF[kind]] = rows[told, ALL_OF[kind]]
    return left
