"""How far a head is turned to the side, from its picture alone: no landmarks, no network.

Ridge regression on histograms of oriented gradients (N. Dalal, B. Triggs, *Histograms of Oriented
Gradients for Human Detection*, CVPR 2005). `experiments/yaw.py` fits `yaw.npy` on rendered actors,
whose yaw is known, and measures it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter1d

from xactor_jax.media.faces import TRACK_SIGMA, cut_view

_PIXELS = 48
_SCALE = 1.3  # head boxes that are looked at: the cheeks and some of the hair are in it
_OFTEN = 0.9  # of the frames are turned less than what a clip is said to be turned


def features(
    gray: UInt8[np.ndarray, "size size"], head: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "900"]:
    """Gradients of the head less those of its mirror image: turned the other way, all change sign.

    Args:
      gray: the view.
      head: (cy, cx, side) in units of the view.
    """
    cy, cx, side = head * len(gray)
    face = cut_view(gray, (cy, cx, _SCALE * side), _PIXELS)
    hog = cv2.HOGDescriptor((_PIXELS, _PIXELS), (16, 16), (8, 8), (8, 8), 9)
    return np.ravel(hog.compute(face)) - np.ravel(hog.compute(np.ascontiguousarray(face[:, ::-1])))


def yaw(gray: UInt8[np.ndarray, "size size"], head: Float[np.ndarray, "3"]) -> float:
    """Degrees by which a head is turned, positive to the picture's right; arguments as above."""
    return float(features(gray, head) @ _weights())


@functools.cache
def _weights() -> Float[np.ndarray, "900"]:
    stored = np.load(Path(__file__).with_name("yaw.npy"), allow_pickle=False)
    return stored.astype(np.float32)


def turned_by(yaws: Float[np.ndarray, " t"]) -> float:
    """Degrees, to either side, that a clip's head is turned by in a tenth of its frames or more.

    Yaws are smoothed as boxes are, since the estimate jitters and heads do not.
    """
    smooth = gaussian_filter1d(np.asarray(yaws, float), TRACK_SIGMA, mode="nearest")
    return float(np.quantile(np.abs(smooth), _OFTEN))
