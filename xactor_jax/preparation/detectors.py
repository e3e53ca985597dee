"""What finds faces and follows them: OpenCV's cascades, or a network from a file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from xactor_jax.media import faces
from xactor_jax.media.faces import BlazeFace, Face

_REACH = 3.0  # sides of the last box that are looked at for the next
_CROP = 192


class Detector(Protocol):
    """Faces of a picture, and one face a frame later."""

    def find(self, picture: UInt8[np.ndarray, "h w 3"], thorough: bool) -> list[Face]:
        """All faces, the largest first; a thorough search may take its time."""
        ...

    def follow(self, picture: UInt8[np.ndarray, "h w 3"], last: Face) -> Face | None:
        """The face near where it was a frame ago."""
        ...


class Cascades:
    """The default: needs no weights, and sees faces from the front."""

    def find(self, picture: UInt8[np.ndarray, "h w 3"], thorough: bool) -> list[Face]:
        """As `faces.detect_faces`."""
        return faces.detect_faces(picture, thorough)

    def follow(self, picture: UInt8[np.ndarray, "h w 3"], last: Face) -> Face | None:
        """As `faces.follow_face`."""
        return faces.follow_face(picture, last)


@dataclasses.dataclass(frozen=True)
class Network:
    """A function that finds faces, also used on a crop to follow one; sees turned heads as well."""

    detect: Callable[[UInt8[np.ndarray, "h w 3"]], list[Face]]

    def find(self, picture: UInt8[np.ndarray, "h w 3"], thorough: bool) -> list[Face]:
        """All faces of the picture, the largest first."""
        return self.detect(picture)

    def follow(self, picture: UInt8[np.ndarray, "h w 3"], last: Face) -> Face | None:
        """The face nearest to the last one, in a crop around that."""
        side = _REACH * last.side
        found = self.detect(faces.cut_view(picture, (last.cy, last.cx, side), _CROP))
        scale, middle = side / _CROP, _CROP / 2
        moved = [
            dataclasses.replace(
                face,
                cx=last.cx + (face.cx - middle) * scale,
                cy=last.cy + (face.cy - middle) * scale,
                side=face.side * scale,
            )
            for face in found
        ]
        near = [face for face in moved if 0.7 < face.side / last.side < 1.4]
        return min(
            near, key=lambda face: np.hypot(face.cx - last.cx, face.cy - last.cy), default=None
        )


@functools.cache
def open_detector(model: str) -> Detector:
    """The detector of MediaPipe's face_detection_short_range.tflite; without a file, the default.

    Raises InputError where it is another file, or that or the package that runs it is missing.
    """
    return Network(BlazeFace(model)) if model else Cascades()
