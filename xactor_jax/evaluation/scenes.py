"""Held-out clips as the models see them: pictures, driving crops and head boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.data.shards import Clip, Shards, audio_to_float, decode_frames
from xactor_jax.data.transforms import (
    PLAIN,
    box_in_picture,
    driving_picture,
    picture_of,
    picture_window,
    relative_box,
)
from xactor_jax.errors import InputError
from xactor_jax.models.renderer import RendererConfig


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Frames of a clip; the first one is the reference."""

    name: str
    pictures: UInt8[np.ndarray, "t s s 3"]
    crops: UInt8[np.ndarray, "t c c 3"]
    head_box: Float[np.ndarray, "t 3"]  # (cy, cx, side) in units of the picture
    audio: Float[np.ndarray, " samples"]  # of the whole clip, 16 kHz

    @property
    def box(self) -> Float[np.ndarray, "t 3"]:
        """Head boxes against the reference's, as the renderer takes them."""
        return relative_box(self.head_box, self.head_box[0])

    def __len__(self) -> int:
        return len(self.pictures)


def driving_crops(clip: Clip, frames: Sequence[int], size: int) -> np.ndarray:
    """What the motion encoder sees of the chosen frames: uint8 (n, size, size, 3)."""
    return _crops(clip, decode_frames(clip, frames), frames, size)


def _crops(clip: Clip, views: np.ndarray, frames: Sequence[int], size: int) -> np.ndarray:
    side, rng = float(np.median(clip.head_box[:, 2])), np.random.default_rng(0)
    pairs = zip(views, clip.head_box[list(frames)], strict=True)
    return np.stack([driving_picture(v, box, side, size, PLAIN, rng) for v, box in pairs])


def scene_of(clip: Clip, config: RendererConfig, frames: Sequence[int] | None = None) -> Scene:
    """The chosen frames of a clip (default: all), cut as training cuts them, unchanged."""
    chosen = list(range(len(clip))) if frames is None else list(frames)
    views, window = decode_frames(clip, chosen), picture_window(clip.head_box, config.view_scale)
    return Scene(
        clip.id,
        np.stack([picture_of(view, window, config.image_size) for view in views]),
        _crops(clip, views, chosen, config.encoder.image_size),
        box_in_picture(clip.head_box[chosen], window),
        audio_to_float(clip.audio),
    )


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers below `count`, evenly spread."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, wanted))})


def footage_clips(shards: Shards, wanted: int, shortest: int) -> list[Clip]:
    """The first segments of at most `wanted` clips of footage, evenly spread over the split.

    Raises InputError when there are not two that last `shortest` frames.
    """
    headers = [shards.header(i) for i in range(len(shards))]
    usable = [
        i
        for i, header in enumerate(headers)
        if header.source == "footage" and header.start == 0 and header.length >= shortest
    ]
    if len(usable) < 2:
        found = f"{len(usable)} clips of footage of {shortest} frames or more in {shards.split!r}"
        raise InputError(f"{shards.folder}: {found}; evaluation needs 2; prepare more footage")
    return [shards[usable[i]] for i in evenly(len(usable), wanted)]


def renderings(shards: Shards) -> list[tuple[int, ...]]:
    """Segments that show one motion on several identities, motion by motion, from its start."""
    motions: dict[str, dict[str, int]] = {}
    for i in range(len(shards)):
        header = shards.header(i)
        if header.start == 0:
            motions.setdefault(header.motion, {}).setdefault(header.identity, i)
    return [tuple(found.values()) for found in motions.values() if len(found) > 1]
