"""Where the scene changes."""

from __future__ import annotations

import collections

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.preparation.settings import Shots

_THUMBNAIL = (32, 32)
_LOOKED_AT = 256  # rows of a picture at least
_USUAL = 25  # changes that tell what is usual


class CutFinder:
    """Tells for one picture after the other whether a new shot begins with it.

    A cut is a change of the thumbnail that is large, or that is sudden against those before: the
    same change again and again is a moving camera.
    """

    def __init__(self, settings: Shots):
        self.settings = settings
        self._before: np.ndarray | None = None
        self._changes: collections.deque[float] = collections.deque(maxlen=_USUAL)

    def __call__(self, picture: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Whether this picture, of the same size as those before, begins another shot."""
        after = thumbnail(picture)
        before, self._before = self._before, after
        if before is None or not self.settings.enabled:
            return False
        change = float(np.abs(after - before).mean())
        usual = max(float(np.median(self._changes)), 0.5) if self._changes else np.inf
        cut = change > self.settings.change or (
            change > self.settings.sudden_change and change > self.settings.sudden * usual
        )
        if cut:
            self._changes.clear()
        else:
            self._changes.append(change)
        return cut


def thumbnail(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "32 32 3"]:
    """A picture so small that only its arrangement and colours are left."""
    # Averages of a sixteenth of the pixels of a 1080p picture take an eighth of the time.
    step = max(min(picture.shape[:2]) // _LOOKED_AT, 1)
    looked_at = np.ascontiguousarray(picture[::step, ::step])
    return cv2.resize(looked_at, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
