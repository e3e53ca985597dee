"""Where the face is: detection, tracking through a clip, and the squares cut around it.

Everything is in pixels of the picture at hand, (y, x) ordered, unless it says "of the view". A box
is a square (cy, cx, side) in the convention of MediaPipe's BlazeFace: from the brows to the chin.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

import cv2
import cv2.data
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit

from xactor_jax.errors import InputError

VIEW_SCALE = 2.0
DRIVING_SCALE = 1.1
TRACK_SIGMA = 5.0
MOST_MISSING = 0.2


@dataclasses.dataclass(frozen=True)
class Face:
    """A face: centre and side of its square box in pixels, and a score in [0, 1]."""

    cx: float
    cy: float
    side: float
    score: float

    @property
    def box(self) -> tuple[float, float, float]:
        """(cy, cx, side) in pixels."""
        return self.cy, self.cx, self.side


@dataclasses.dataclass(frozen=True)
class _Cascade:
    """One of OpenCV's Haar cascades and how its square lies around BlazeFace's.

    The three numbers are medians over 53 portraits and 82 frames of footage, in BlazeFace sides
    (spread .03 for the centre, .07 for the side).
    """

    file: str
    side: float
    right: float
    below: float

    @functools.cached_property
    def classifier(self) -> cv2.CascadeClassifier:
        return cv2.CascadeClassifier(cv2.data.haarcascades + self.file)

    def __call__(self, gray: np.ndarray, smallest: float, largest: float, step: float) -> list:
        """Squares (cy, cx, side, weight) between two sides, as BlazeFace would draw them."""
        low, high = (max(round(limit * self.side), 24) for limit in (smallest, largest))
        boxes, _, weights = self.classifier.detectMultiScale3(
            gray, step, 4, minSize=(low, low), maxSize=(high, high), outputRejectLevels=True
        )
        found = []
        for (x, y, w, h), weight in zip(boxes, np.ravel(weights), strict=True):
            side = w / self.side
            cy, cx = y + h / 2 - self.below * side, x + w / 2 - self.right * side
            found.append((float(cy), float(cx), float(side), float(weight)))
        return found


_FIRST = _Cascade("haarcascade_frontalface_default.xml", 1.119, 0.0105, -0.1302)
_SECOND = _Cascade("haarcascade_frontalface_alt2.xml", 1.094, 0.0106, -0.1314)
# (side of the picture in pixels, tilt in degrees), in the order they are tried.
_SEARCHES = (
    *((side, 0) for side in (320, 640, 1280)),
    *((side, tilt) for side in (320, 640) for tilt in (20, -20, 40, -40)),
)
_TRACKED_SIDE = 64
_SMALLEST = 26
_DOUBTFUL = 0.4


def detect_faces(image: UInt8[np.ndarray, "h w 3"], thorough: bool = True) -> list[Face]:
    """Find the faces in an RGB picture, the largest first.

    Two cascades trained apart must agree on each, which is what keeps collars and wallpaper out.
    When there is none a thorough search looks again at the picture enlarged, then tilted by up to
    40 degrees.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    for side, tilt in _SEARCHES if thorough else _SEARCHES[:1]:
        faces = _search(gray, side, tilt)
        if faces:
            return sorted(faces, key=lambda face: -face.side)
    return []


def _search(gray: np.ndarray, side: int, tilt: float) -> list[Face]:
    """Faces of a picture brought to `side` pixels and turned by `tilt` degrees about its centre."""
    h, w = gray.shape
    scale = side / max(h, w)
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), tilt, scale)
    size = np.maximum(np.round(np.array([w, h]) * scale), 1).astype(int)
    matrix[:, 2] += size / 2 - np.array([w, h]) / 2
    if tilt:
        small = cv2.warpAffine(gray, matrix, size.tolist(), borderMode=cv2.BORDER_REPLICATE)
    else:
        filter = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(gray, size.tolist(), interpolation=filter)
    step = 1.05 if side <= 320 else 1.1
    first, second = (cascade(small, _SMALLEST, side, step) for cascade in (_FIRST, _SECOND))
    back = cv2.invertAffineTransform(matrix)
    faces = []
    for box in _agreeing(first, second):
        if _score(box[3]) < _DOUBTFUL:
            continue
        cx, cy = back @ [box[1], box[0], 1]
        faces.append(Face(float(cx), float(cy), box[2] / scale, _score(box[3])))
    return faces


def _score(weight: float) -> float:
    """The first cascade's level weight (about 3 for a doubtful face, 11 for a plain one)."""
    return float(1 - np.exp(-max(weight, 0.0) / 4))


def _agreeing(first: list, second: list) -> list:
    """Means of the squares both cascades found; of squares on one face only the surest."""
    kept: list = []
    for box in sorted(first, key=lambda box: -box[3]):
        partner = max(second, key=lambda other: _overlap(box, other), default=None)
        if partner is None or _overlap(box, partner) < 0.4:
            continue
        mean = tuple(float(v) for v in (np.array(box) + np.array(partner))[:3] / 2) + box[3:]
        if not any(_same_place(mean, other) for other in kept):
            kept.append(mean)
    return kept


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two squares (cy, cx, side)."""
    sides = [
        min(a[i] + a[2] / 2, b[i] + b[2] / 2) - max(a[i] - a[2] / 2, b[i] - b[2] / 2)
        for i in (0, 1)
    ]
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (a[2] ** 2 + b[2] ** 2 - shared)


def _same_place(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether one square's centre lies in the other's square: no room for two heads."""
    reach = max(a[2], b[2]) / 2
    return abs(a[0] - b[0]) < reach and abs(a[1] - b[1]) < reach


def single_face(image: UInt8[np.ndarray, "h w 3"], name: str) -> Face:
    """The one face of an RGB picture that `name` calls in messages.

    Raises:
      InputError: there is no face, or more than one.
    """
    faces = detect_faces(image)
    if not faces:
        raise InputError(f"{name}: no face found; use a picture with one face seen from the front")
    if len(faces) > 1:
        raise InputError(f"{name}: {len(faces)} faces found; crop the picture to one of them")
    return faces[0]


def follow_face(image: UInt8[np.ndarray, "h w 3"], last: Face) -> Face | None:
    """The face near where it was a frame ago, or None; ten times faster than a full search."""
    reach = 2 * last.side
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gray = cut_view(gray, (last.cy, last.cx, reach), 2 * _TRACKED_SIDE)
    for cascade in (_SECOND, _FIRST):
        boxes = cascade(gray, 0.75 * _TRACKED_SIDE, 1.35 * _TRACKED_SIDE, 1.1)
        if boxes:
            cy, cx, side, _ = max(boxes, key=lambda box: box[3])
            scale = last.side / _TRACKED_SIDE
            left, top = last.cx - last.side, last.cy - last.side
            return Face(left + cx * scale, top + cy * scale, side * scale, last.score)
    return None


def head_track(boxes: Sequence[Sequence[float] | None]) -> Float64[np.ndarray, "t 3"]:
    """Boxes (cy, cx, side) of a clip smoothed in time by a Gaussian of 5 frames; None is filled in.

    Source: bytedance/x-nemo-inference scripts/vid2pose.py (smoothing of the centre).

    Raises:
      InputError: there is no frame, or the face is missing in a fifth of them.
    """
    seen = np.array([box is not None for box in boxes], bool)
    if not seen.any() or np.sum(~seen) >= MOST_MISSING * len(seen):
        raise InputError(f"no face in {np.sum(~seen)} of {len(seen)} frames")
    known = np.array([box for box in boxes if box is not None], np.float64)
    times = np.arange(len(boxes))
    filled = np.stack([np.interp(times, times[seen], column) for column in known.T], axis=1)
    return gaussian_filter1d(filled, TRACK_SIGMA, axis=0, mode="nearest")


def view_window(
    boxes: Float64[np.ndarray, "t 3"], height: int, width: int
) -> tuple[float, float, float]:
    """A clip's fixed square (cy, cx, side): twice the median box, moved to leave the picture least.

    Source: bytedance/x-nemo-inference scripts/vid2pose.py (reference crop).
    """
    cy, cx, side = (float(value) for value in np.median(boxes, axis=0))
    side *= VIEW_SCALE
    return _shifted(cy, side, height), _shifted(cx, side, width), side


def _shifted(centre: float, side: float, extent: float) -> float:
    """The centre moved so that the square lies in the picture, or holds all of it if larger."""
    low, high = sorted((side / 2, extent - side / 2))
    return min(max(centre, low), high)


def to_view(
    boxes: Float64[np.ndarray, "t 3"], window: Sequence[float]
) -> Float32[np.ndarray, "t 3"]:
    """Boxes in units of the view that `window` cuts: 0 to 1, the face near (.5, .5, .5)."""
    cy, cx, side = window
    return ((boxes - [cy - side / 2, cx - side / 2, 0]) / side).astype(np.float32)


def cut_view(
    image: UInt8[np.ndarray, "h w *channels"], window: Sequence[float], size: int
) -> UInt8[np.ndarray, "size size *channels"]:
    """Cut the square (cy, cx, side) to `size` pixels, at fractions of a pixel, without aliasing.

    What lies outside the picture repeats its edge.
    """
    cy, cx, side = window
    # Sampling at no less than the picture's own density, then averaging: an exact box filter.
    times = max(1, int(np.ceil(side / size - 1e-6)))
    step = side / (size * times)
    matrix = np.array(
        [[step, 0, cx - side / 2 + step / 2 - 0.5], [0, step, cy - side / 2 + step / 2 - 0.5]]
    )
    # Nine samples a pixel average a linear filter's error away, and it takes a quarter of the time.
    flags = (cv2.INTER_LINEAR if times > 2 else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP
    dense = cv2.warpAffine(
        image, matrix, (size * times, size * times), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.resize(dense, (size, size), interpolation=cv2.INTER_AREA) if times > 1 else dense


class BlazeFace:
    """MediaPipe's short-range face detector; finds profiles and tilted heads that cascades miss.

    Needs `ai-edge-litert` (the extra `evaluation`) and `face_detection_short_range.tflite`.
    Source: google-ai-edge/mediapipe modules/face_detection.

    Raises InputError where one of these is missing, or the file is another one.
    """

    def __init__(self, model: str | os.PathLike):
        name = "face_detection_short_range.tflite"
        self._run = _network(model, name, side=128, sizes=(896 * 16, 896))
        centres = [
            ((x + 0.5) / cells, (y + 0.5) / cells)
            for cells, anchors in ((16, 2), (8, 6))
            for y in range(cells)
            for x in range(cells)
            for _ in range(anchors)
        ]
        self._anchors = np.array(centres, np.float32)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], least: float = 0.5) -> list[Face]:
        """Faces of an RGB picture that score `least` or more, the largest first."""
        side = max(image.shape[:2])
        corner = (side - image.shape[1]) / 2, (side - image.shape[0]) / 2
        square = np.zeros((side, side, 3), np.uint8)
        top, left = int(corner[1]), int(corner[0])
        square[top : top + image.shape[0], left : left + image.shape[1]] = image
        small = cv2.resize(square, (128, 128), interpolation=cv2.INTER_AREA)
        outputs = self._run(small[None].astype(np.float32) / 127.5 - 1)
        boxes = next(out for out in outputs if out.shape[-1] == 16)[0] / 128
        scores = expit(next(out for out in outputs if out.shape[-1] == 1)[0, :, 0])
        faces: list[Face] = []
        for i in np.argsort(-scores):
            if scores[i] < least:
                break
            cx, cy = (self._anchors[i] + boxes[i, :2]) * side - [left, top]
            face = Face(float(cx), float(cy), float(boxes[i, 2:4].max() * side), float(scores[i]))
            if not any(_same_place(face.box, other.box) for other in faces):
                faces.append(face)
        return sorted(faces, key=lambda face: -face.side)


class FaceMesh:
    """MediaPipe's face mesh: 468 points on a face.

    Needs `ai-edge-litert` (the extra `evaluation`) and `face_landmark.tflite`.
    Source: google-ai-edge/mediapipe modules/face_landmark.

    Raises InputError where one of these is missing, or the file is another one.
    """

    def __init__(self, model: str | os.PathLike):
        self._run = _network(model, "face_landmark.tflite", side=192, sizes=(468 * 3, 1))

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], face: Face
    ) -> tuple[Float32[np.ndarray, "468 2"], float]:
        """Points (x, y) in pixels of the RGB picture, and how sure it is a face, in [0, 1]."""
        points, _ = self._points(image, face, 0.0)
        # The network expects level eyes, so a first look finds the tilt: outer eye corners.
        right, down = points[263] - points[33]
        return self._points(image, face, float(np.arctan2(down, right)))

    def _points(
        self, image: UInt8[np.ndarray, "h w 3"], face: Face, tilt: float
    ) -> tuple[Float32[np.ndarray, "468 2"], float]:
        step = 1.5 * face.side / 192
        turn = step * np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        corner = [face.cx, face.cy] - turn @ [96, 96]
        crop = cv2.warpAffine(
            image,
            np.column_stack([turn, corner]),
            (192, 192),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        outputs = self._run(crop[None].astype(np.float32) / 255)
        points = next(out for out in outputs if out.size == 468 * 3).reshape(468, 3)[:, :2]
        score = next(out for out in outputs if out.size == 1).item()
        return (points @ turn.T + corner).astype(np.float32), float(expit(score))


def _network(
    model: str | os.PathLike, name: str, side: int, sizes: Sequence[int]
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A TFLite network as a function from its input to its outputs, on one thread.

    Args:
      name: of MediaPipe's file, for messages.
      side: of the square pictures that it takes.
      sizes: numbers of values of outputs that it has.
    """
    if not os.path.isfile(model):
        raise InputError(f"{model}: no such file; give MediaPipe's {name}")
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        cure = "pip install ai-edge-litert"
        raise InputError(f"{model}: needs the package ai-edge-litert; {cure}") from None
    try:
        interpreter = Interpreter(str(model), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError):
        raise InputError(f"{model}: no TFLite network; give MediaPipe's {name}") from None
    given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()
    found = {int(np.prod(output["shape"])) for output in wanted}
    if tuple(given["shape"]) != (1, side, side, 3) or not found.issuperset(sizes):
        raise InputError(f"{model}: another network; give MediaPipe's {name}")

    def run(batch: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"]) for output in wanted]

    return run
