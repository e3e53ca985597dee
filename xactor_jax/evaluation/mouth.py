"""How far the mouth is open, measured on pictures by a face mesh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.errors import InputError
from xactor_jax.media.faces import Face, FaceMesh

FACE_MESH_FILE = "face_landmark.tflite"
# Points of the mesh: inner edges of the upper and lower lip, top of the forehead, chin.
UPPER_LIP, LOWER_LIP, FOREHEAD, CHIN = 13, 14, 10, 152
_LEAST_SIDE = 256  # the mesh looks at 192 pixels of face; smaller pictures are enlarged smoothly

MouthMeter = Callable[
    [UInt8[np.ndarray, "t s s 3"], Float[np.ndarray, "t 3"]], Float[np.ndarray, " t"]
]
"""Pictures and the head boxes (cy, cx, side) in them, in units of the picture -> openings."""


def mouth_opening(points: Float[np.ndarray, "468 2"]) -> float:
    """Gap between the lips over the height of the face."""
    gap = np.linalg.norm(points[UPPER_LIP] - points[LOWER_LIP])
    return float(gap / np.linalg.norm(points[FOREHEAD] - points[CHIN]))


def mouth_meter(face_models: str | Path) -> MouthMeter:
    """A function that measures the mouth opening of pictures, with the mesh of a folder.

    Raises InputError when the model, or the package that runs it, is missing.
    """
    path = Path(face_models) / FACE_MESH_FILE
    if not path.is_file():
        raise InputError(
            f"{path}: no face mesh here; run pip download mediapipe==0.10.21 --no-deps, unzip the "
            f"wheel, and copy {FACE_MESH_FILE} from its mediapipe/modules/face_landmark"
        )
    mesh = FaceMesh(path)

    def measure(pictures: np.ndarray, head_box: np.ndarray) -> np.ndarray:
        size = max(_LEAST_SIDE, pictures.shape[1])
        openings = []
        for picture, (cy, cx, side) in zip(pictures, head_box * size, strict=True):
            if len(picture) < size:
                picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
            points, _ = mesh(picture, Face(float(cx), float(cy), float(side), 1.0))
            openings.append(mouth_opening(points))
        return np.array(openings)

    return measure
