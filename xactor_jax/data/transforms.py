"""From stored views to what the renderer is trained on: pictures, driving crops, augmentation."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.media.faces import DRIVING_SCALE, cut_view

# Examples are read on several threads at once; OpenCV's own threads would only get in their way.
cv2.setNumThreads(1)

Picture = UInt8[np.ndarray, "h w 3"]


def picture_window(head_box: Float[np.ndarray, "t 3"], scale: float) -> tuple[float, float, float]:
    """The fixed square (cy, cx, side) of a clip's view that is rendered: `scale` head boxes wide.

    Everything is in units of the view; the square is centred on the head and lies in the view.
    """
    cy, cx, side = (float(value) for value in np.median(head_box, axis=0))
    side = min(scale * side, 1.0)
    return min(max(cy, side / 2), 1 - side / 2), min(max(cx, side / 2), 1 - side / 2), side


def picture_of(view: Picture, window: tuple[float, float, float], size: int) -> Picture:
    """The window of a stored view at `size` pixels."""
    extent = view.shape[0]
    return cut_view(view, [extent * value for value in window], size)


def box_in_picture(
    head_box: Float[np.ndarray, "t 3"], window: tuple[float, float, float]
) -> Float[np.ndarray, "t 3"]:
    """Head boxes (cy, cx, side) in units of the view -> in units of the window's picture."""
    cy, cx, side = window
    corner = np.array([cy - side / 2, cx - side / 2, 0.0])
    return ((head_box - corner) / side).astype(np.float32)


def relative_box(
    head_box: Float[np.ndarray, "t 3"], reference: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "t 3"]:
    """Head boxes against the reference's: dy, dx in its sides, and the ratio of the sides.

    (bytedance/x-nemo-inference scripts/pose2vid_xnemo.py)
    """
    shift = (head_box[:, :2] - reference[:2]) / reference[2]
    return np.concatenate([shift, head_box[:, 2:] / reference[2]], axis=1).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Changes that must not change the motion: colour and, for driving crops, place."""

    brightness: float = 0.0
    contrast: float = 0.0
    tint: float = 0.0
    gray: float = 0.0  # share of pictures turned gray
    noise: float = 0.0  # standard deviation, of 255
    scale: float = 0.0
    shift: float = 0.0  # in crop sides
    rotation: float = 0.0  # degrees

    def colour(self, rng: np.random.Generator) -> Colour:
        """Draw one change of colour."""
        gain = (1 + self.contrast * rng.uniform(-1, 1)) * (1 + self.tint * rng.uniform(-1, 1, 3))
        offset = 255 * self.brightness * rng.uniform(-1, 1)
        return Colour(gain.astype(np.float32), float(offset), bool(rng.random() < self.gray))

    def place(self, rng: np.random.Generator) -> tuple[float, float, float, float]:
        """Draw dy, dx (in crop sides), the scale and the rotation (degrees)."""
        shift = self.shift * rng.uniform(-1, 1, 2)
        return (
            float(shift[0]),
            float(shift[1]),
            float(1 + self.scale * rng.uniform(-1, 1)),
            float(self.rotation * rng.uniform(-1, 1)),
        )


@dataclasses.dataclass(frozen=True)
class Colour:
    """One drawn change of colour, to be applied alike to several pictures."""

    gain: Float[np.ndarray, " 3"]
    offset: float
    gray: bool

    def __call__(self, picture: Picture) -> Picture:
        """The picture in other colours; itself where nothing changes."""
        if not self.gray and not self.offset and np.all(self.gain == 1):
            return picture
        if self.gray:
            picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        mean = np.array(cv2.mean(picture)[:3])
        table = np.arange(256)[:, None] - mean
        table = table * self.gain + mean * (1 + self.gain) / 2 + self.offset
        return cv2.LUT(picture, np.clip(np.rint(table), 0, 255).astype(np.uint8)[None])


def driving_picture(
    view: Picture,
    head_box: Float[np.ndarray, " 3"],
    side: float,
    size: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Picture:
    """The crop the motion encoder sees, changed in colour, noise, scale, place and rotation.

    Args:
      head_box: (cy, cx, side) of the frame in units of the view.
      side: the clip's median head box side in units of the view.
    """
    dy, dx, scale, rotation = augmentation.place(rng)
    extent = view.shape[0]
    reach = DRIVING_SCALE * side * extent * scale
    centre = [min(max(c * extent, reach / 2), extent - reach / 2) for c in head_box[:2]]
    centre = [centre[0] + dy * reach, centre[1] + dx * reach]
    # Sampled at no less than the view's own density, then averaged: nothing aliases.
    times = max(1, int(np.ceil(reach / size - 1e-6)))
    dense, turn = size * times, np.deg2rad(rotation)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * reach / dense
    middle = np.array([centre[1] - 0.5, centre[0] - 0.5])
    matrix = np.column_stack([linear, middle - linear @ np.full(2, (dense - 1) / 2)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(
        view, matrix, (dense, dense), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    if times > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    crop = augmentation.colour(rng)(crop)
    if augmentation.noise:
        deviation = np.float32(augmentation.noise * rng.random())
        noisy = crop + deviation * rng.standard_normal(crop.shape, np.float32)
        crop = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return crop


PLAIN = Augmentation()
"""No change at all: what evaluation and generation use."""
