"""Measures of a clip's picture, taken from its views one after the other."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from xactor_jax.media.faces import cut_view
from xactor_jax.preparation import pose
from xactor_jax.preparation.settings import Quality
from xactor_jax.preparation.sync import mouth_patch

_FACE = 96  # pixels of the face that sharpness is measured at
_THUMBNAIL = 32
_LAYOUT = 160  # pixels of the view that lasting edges are looked for in
_LASTING = 25  # frames that writing stays for
_EDGE = 28.0  # levels per pixel: the side of a stroke
_WINDOW = (10, 50)  # height and width, of those pixels, of a line of writing
_TALL = 22  # pixels from which on a stroke is too tall for writing
# Brows, eyes and hair have lasting strokes too: to either side, above and below the head's centre,
# in head boxes. Chin and collar are not among them, where captions are.
_EYES = (0.55, 0.55, 0.1)
_ALIKE = 0.5  # correlation with other faces of the clip; heads that only turn keep above it
_COMPARED = 13  # faces that each is compared with
_MANY = 0.4  # share of them that it must resemble
_MOVED = 5  # pixels of a thumbnail


@dataclasses.dataclass(frozen=True)
class PictureMeasures:
    """Measures of one clip; shares are of frames, levels are 0 to 255."""

    face_pixels: float  # median side of the face in pixels of the source
    blur: float  # variance of the Laplacian of the face, median
    dark: float  # mean level of the face, median
    contrast: float  # deviation of the face's levels, median
    static: float  # change of the face from frame to frame in levels, mean
    occluded: float  # share of frames that resemble too few faces of the clip
    turned: float  # share of frames in which a detector of frontal faces did not see it
    yaw: float  # degrees that the head is turned by in a tenth of the frames
    overlay: float  # how full of lasting strokes the fullest window off the eyes is
    second_face: float  # side of the largest other face in the view against this one


class ViewMeter:
    """Measures views as they come; memory grows by a kilobyte and a half a frame."""

    def __init__(self) -> None:
        self.mouth: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._sharp: list[float] = []
        self._yaws: list[float] = []
        self._edges = np.zeros((_LAYOUT, _LAYOUT))
        self._overlay = 0.0
        self._picture = np.zeros((_THUMBNAIL, _THUMBNAIL))
        self._heads: list[np.ndarray] = []

    def add(self, view: UInt8[np.ndarray, "s s 3"], head: Float[np.ndarray, "3"]) -> None:
        """Measure the next view; `head` is (cy, cx, side) in units of the view."""
        gray = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
        face = cut_view(gray, tuple(head * len(gray)), _FACE)
        self.mouth.append(mouth_patch(gray, head))
        self._faces.append(_reduced(face, _THUMBNAIL))
        self._sharp.append(sharpness(face))
        self._yaws.append(pose.yaw(gray, head))
        layout = _reduced(gray, _LAYOUT).astype(np.float32)
        self._edges += cv2.Sobel(layout, cv2.CV_32F, 1, 0) / 4
        self._picture += _reduced(gray, _THUMBNAIL)
        self._heads.append(np.asarray(head))
        if len(self._heads) == _LASTING:
            self._overlay = self._fullest()
            self._edges[:] = 0
            self._heads.clear()

    def _fullest(self) -> float:
        """The overlay so far: captions change, so that every second is looked at by itself."""
        few = len(self._heads) <= _LASTING // 2
        if few and len(self._faces) >= _LASTING:
            return self._overlay
        head = np.median(self._heads, axis=0)
        return max(self._overlay, overlay(self._edges / len(self._heads), head))

    @property
    def picture(self) -> UInt8[np.ndarray, "32 32"]:
        """The mean picture of the clip."""
        return np.round(self._picture / len(self._faces)).astype(np.uint8)

    def measures(self, face_pixels: float, turned: float, second_face: float) -> PictureMeasures:
        """What all views together say."""
        faces = np.stack(self._faces).astype(np.float32)
        levels = faces.mean(axis=(1, 2))
        return PictureMeasures(
            face_pixels=face_pixels,
            blur=float(np.median(self._sharp)),
            dark=float(np.median(levels)),
            contrast=float(np.median(faces.std(axis=(1, 2)))),
            static=float(np.abs(np.diff(faces, axis=0)).mean()) if len(faces) > 1 else 0.0,
            occluded=float(np.mean(~like_itself(faces))),
            turned=turned,
            yaw=pose.turned_by(np.array(self._yaws)),
            overlay=self._fullest(),
            second_face=second_face,
        )


def _reduced(gray: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA)


def sharpness(face: UInt8[np.ndarray, "h w"]) -> float:
    """Variance of the Laplacian, the usual measure of focus (Pech-Pacheco et al., ICPR 2000)."""
    return float(cv2.Laplacian(face, cv2.CV_32F).var())


def like_itself(faces: Float[np.ndarray, "t 32 32"]) -> Bool[np.ndarray, " t"]:
    """Which frames resemble many faces of the clip: hands and objects before one do not.

    A face is moved by up to `_MOVED` pixels to where it fits best, as a lively head is not where it
    was on average.
    """
    faces = faces.astype(np.float32)
    inside = slice(_MOVED, -_MOVED)
    others = faces[np.linspace(0, len(faces) - 1, _COMPARED).astype(int), inside, inside]
    fits = [
        [cv2.matchTemplate(face, other, cv2.TM_CCOEFF_NORMED).max() for other in others]
        for face in faces
    ]
    return np.quantile(fits, 1 - _MANY, axis=1) >= _ALIKE


def overlay(gradient: Float[np.ndarray, "160 160"], head: Float[np.ndarray, "3"]) -> float:
    """How full of upright strokes, that stay in the mean of a second, a line of the picture is.

    Each stroke is a rise and a fall of brightness, which tells writing from outlines, and is short,
    which tells it from stripes, collars and window frames.

    Args:
      gradient: mean over time of the view's change to the right; what moves averages out.
      head: (cy, cx, side) in units of the view; the strokes of its eyes and hair do not count.
    """
    cy, cx, side = head * _LAYOUT
    beside, above, below = (reach * side for reach in _EYES)
    top, bottom, left, right = (
        int(np.clip(round(edge), 0, _LAYOUT))
        for edge in (cy - above, cy + below, cx - beside, cx + beside)
    )
    full = []
    for strong in ((gradient > _EDGE).astype(np.uint8), (gradient < -_EDGE).astype(np.uint8)):
        wide = cv2.dilate(strong, np.ones((1, 3), np.uint8))
        tall = cv2.morphologyEx(wide, cv2.MORPH_OPEN, np.ones((_TALL, 1), np.uint8))
        share = np.where(np.asarray(tall) > 0, 0, strong).astype(np.float32)
        share[top:bottom, left:right] = 0
        full.append(cv2.blur(share, _WINDOW[::-1], borderType=cv2.BORDER_CONSTANT))
    return float(2 * np.minimum(*full).max())


def refusal(measured: PictureMeasures, settings: Quality) -> str:
    """Why a clip's picture cannot be used, or nothing."""
    for name, problem in (
        ("face_pixels", "the face is {:.0f} pixels small"),
        ("blur", "blurred: {:.1f}"),
        ("dark", "dark: {:.0f}"),
        ("contrast", "flat: {:.1f}"),
        ("static", "the face does not move: {:.2f}"),
    ):
        value = getattr(measured, name)
        if value < getattr(settings, name):
            return problem.format(value)
    for name, problem in (
        ("occluded", "something covers the face in {:.0%} of the frames"),
        ("turned", "the face is turned away in {:.0%} of the frames"),
        ("yaw", "the head is turned to the side by {:.0f} degrees"),
        ("overlay", "writing or a mark in the picture: {:.2f}"),
        ("second_face", "another face in the picture, {:.0%} as large"),
    ):
        value = getattr(measured, name)
        if value > getattr(settings, name):
            return problem.format(value)
    return ""
