"""Small pictures for the report, as JPEGs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

_SIDE = 96  # pixels of a view
_LONGEST = 192  # pixels of a picture


def of_views(frames: Sequence[bytes]) -> bytes:
    """The first, middle and last view, as JPEGs, side by side."""
    chosen = [frames[0], frames[len(frames) // 2], frames[-1]]
    jpegs = [np.frombuffer(jpeg, np.uint8) for jpeg in chosen]
    views: list[Any] = [cv2.imdecode(jpeg, cv2.IMREAD_COLOR) for jpeg in jpegs]
    return _encoded(np.hstack([_reduced(view, _SIDE, _SIDE) for view in views]))


def of_picture(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A picture in RGB."""
    scale = min(_LONGEST / max(picture.shape[:2]), 1)
    height, width = (max(round(scale * side), 1) for side in picture.shape[:2])
    return _encoded(_reduced(picture, height, width)[..., ::-1])


def _reduced(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _encoded(picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
