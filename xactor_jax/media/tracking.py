"""The one head of a video: found, then followed from frame to frame."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from xactor_jax.data.shards import FRAME_RATE
from xactor_jax.errors import InputError
from xactor_jax.media import faces
from xactor_jax.media.faces import Face
from xactor_jax.media.video import read_video

# In face sides from one frame to the next: more than a head can move in 40 ms.
LARGEST_JUMP = 0.25
# Mean change in brightness (0 to 255) of a thumbnail from one frame to the next: another scene.
LARGEST_CHANGE = 40.0
# Once a second the whole picture is searched: for other people, and to find a lost face again.
SEARCH_EVERY = FRAME_RATE
# Seconds without any face after which the rest of a file is not searched.
LONGEST_WAIT = 10
_THUMBNAIL = (32, 32)

Box = tuple[float, float, float]  # (cy, cx, side) in pixels


def find_head(
    path: str | os.PathLike,
    advance: Callable[[int], None] | None = None,
    start: float = 0.0,
    end: float | None = None,
) -> tuple[list[Box | None], tuple[int, int]]:
    """The face's box in every frame at 25 a second, and the picture's height and width.

    Args:
      advance: told after each frame that one more is done.
      start, end: seconds between which frames are searched; None: to the last one.

    Returns:
      Boxes as `faces` has them, None where the face is lost, and (height, width) in pixels.

    Raises:
      InputError: the file is no video, there is no face, another face stays in the picture, or the
        scene changes.
    """
    path = Path(path)
    boxes: list[Box | None] = []
    crowds, searches, shape = 0, 0, (0, 0)
    last: Face | None = None
    thumbnail = None
    for count, picture in enumerate(read_video(path, start=start, end=end)):
        if count and picture.shape[:2] != shape:
            raise InputError(f"{path}: the picture changes its size at {count / FRAME_RATE:.2f} s")
        shape = picture.shape[:2]
        thumbnail = _same_scene(thumbnail, picture, count, path)
        face = faces.follow_face(picture, last) if last else None
        if face is None or count % SEARCH_EVERY == 0:
            # Thorough searches are slow, and only for a face that was never seen.
            found = faces.detect_faces(picture, last is None and count % SEARCH_EVERY == 0)
            searches += 1
            crowds += len(found) > 1
            face = face or _nearest(found, last)
        if face and last and boxes[-1] is not None:
            _check_jump(last, face, count, path)
        boxes.append(face.box if face else None)
        last = face or last
        if last is None and count == LONGEST_WAIT * FRAME_RATE:
            raise InputError(f"{path}: no face found in the first {LONGEST_WAIT} s")
        if advance:
            advance(1)
    if not any(boxes):
        raise InputError(f"{path}: no face found; show one person from the front")
    if 2 * crowds > searches:
        raise InputError(
            f"{path}: several faces in {crowds} of the {searches} frames searched; crop to one"
        )
    return boxes, shape


def _nearest(found: list[Face], last: Face | None) -> Face | None:
    """The face nearest to the last one, or the largest when there was none."""
    if last is None:
        return found[0] if found else None
    return min(found, key=lambda face: np.hypot(face.cx - last.cx, face.cy - last.cy), default=None)


def _check_jump(last: Face, face: Face, count: int, path: Path) -> None:
    jump = float(np.hypot(face.cx - last.cx, face.cy - last.cy)) / last.side
    if jump > LARGEST_JUMP:
        moment = f"at {count / FRAME_RATE:.2f} s"
        raise InputError(f"{path}: the face jumps by {jump:.2f} of its width {moment} (a cut?)")


def _same_scene(
    before: np.ndarray | None, picture: np.ndarray, count: int, path: Path
) -> np.ndarray:
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    after = cv2.resize(gray, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
    if before is not None and np.abs(after - before).mean() > LARGEST_CHANGE:
        moment = f"at {count / FRAME_RATE:.2f} s"
        raise InputError(f"{path}: the scene changes {moment}; cut the clip there")
    return after
