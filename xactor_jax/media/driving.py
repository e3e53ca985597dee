"""A video whose person's motion is to be performed by someone else."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from xactor_jax.data.transforms import PLAIN, driving_picture, relative_box
from xactor_jax.errors import InputError
from xactor_jax.media.faces import cut_view, head_track, to_view, view_window
from xactor_jax.media.tracking import find_head
from xactor_jax.media.video import read_video


@dataclasses.dataclass(frozen=True, eq=False)
class Driver:
    """The person of a video: where the head is in every frame, at 25 a second."""

    path: Path
    window: tuple[float, float, float]  # the view's square (cy, cx, side) in pixels of the video
    head_box: Float32[np.ndarray, "t 3"]  # (cy, cx, side) in units of the view

    def __len__(self) -> int:
        return len(self.head_box)

    @property
    def box(self) -> Float32[np.ndarray, "t 3"]:
        """Head boxes against the first frame's, as the renderer takes them."""
        return relative_box(self.head_box, self.head_box[0])

    def crops(self, view: int, size: int) -> Iterator[UInt8[np.ndarray, "{size} {size} 3"]]:
        """What the motion encoder sees of each frame, one frame in memory at a time.

        Cut as training clips are: from a view of `view` pixels a side.

        Raises InputError where the video cannot be read a second time.
        """
        side, rng = float(np.median(self.head_box[:, 2])), np.random.default_rng(0)
        count = 0
        for picture, head in zip(read_video(self.path), self.head_box, strict=False):
            cut = cut_view(picture, self.window, view)
            yield driving_picture(cut, head, side, size, PLAIN, rng)
            count += 1
        if count < len(self):
            raise InputError(f"{self.path}: the picture breaks off when read again")


def find_driver(path: str | os.PathLike, advance: Callable[[int], None] | None = None) -> Driver:
    """Find a video's one face and follow it, as footage to train on is prepared.

    Args:
      advance: told after each frame that one more is done.

    Raises:
      InputError: the file is no video; it shows nobody, several people or a cut; or the face is
        lost in a fifth of the frames.
    """
    path = Path(path)
    boxes, (height, width) = find_head(path, advance)
    try:
        track = head_track(boxes)
    except InputError as error:
        raise InputError(f"{path}: {error}; show one person from the front") from None
    window = view_window(track, height, width)
    return Driver(path, window, to_view(track, window))
