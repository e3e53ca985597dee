"""Training examples of faces: a reference, targets, and driving crops that show their motion."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float32

from xactor_jax.data.facekit import EXPRESSIONS
from xactor_jax.data.shards import Clip, decode_frames, held_out_split, open_shards
from xactor_jax.data.transforms import (
    PLAIN,
    Augmentation,
    box_in_picture,
    driving_picture,
    picture_of,
    picture_window,
    relative_box,
)
from xactor_jax.data.windows import SOURCES, MixedWindows
from xactor_jax.errors import InputError
from xactor_jax.media.faces import VIEW_SCALE

TRUTH_NAMES = (*EXPRESSIONS, "yaw", "pitch", "roll")  # columns of `truth_of`
TRUTH = len(TRUTH_NAMES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceExampleConfig:
    """Where examples come from and how they are cut; pictures are square, sizes in pixels."""

    folders: tuple[str, ...] = ()
    image_size: int = 512
    view_scale: float = 2.0
    crop_size: int = 224
    face_size: int = 32
    targets: int = 4
    other_crops: int = 2  # targets that have a second driving crop
    consecutive: bool = False  # targets are one run of frames (video) or anywhere in the segment
    stride: int = 8  # frames between the places that make up an epoch
    footage_share: float = 0.5
    cross_identity: float = 0.5  # actors driven by the same motion on another identity
    augment: bool = True
    kept_segments: int = 0  # segments held in memory once read, for small sets and slow disks
    crop_augmentation: Augmentation = Augmentation(
        brightness=0.15,
        contrast=0.3,
        tint=0.12,
        gray=0.3,
        noise=6.0,
        # Small: where a head is and how it leans is motion, which the renderer must be told.
        scale=0.03,
        shift=0.015,
        rotation=1.0,
    )
    picture_augmentation: Augmentation = Augmentation(brightness=0.06, contrast=0.12, tint=0.06)


class FaceExamples:
    """Random access to clips: `[i]` is a small index, `load` reads and cuts it.

    Args:
      held_out: the clips that a training is measured on, not those that it learns from.

    Raises InputError where there are none.
    """

    def __init__(self, config: FaceExampleConfig, *, held_out: bool = False):
        self.config = config
        shortest = config.targets if config.consecutive else 1
        self.shards = [
            open_shards(folder, held_out_split(folder, shortest) if held_out else "train")
            for folder in config.folders
        ]
        self.places = [(s, i) for s, shard in enumerate(self.shards) for i in range(len(shard))]
        headers = [self.shards[s].header(i) for s, i in self.places]
        self.segments = {
            source: [
                n
                for n, header in enumerate(headers)
                if header.source == source and header.length >= shortest
            ]
            for source in SOURCES
        }
        if not any(self.segments.values()):
            split = "test" if held_out else "train"
            raise InputError(f"{', '.join(config.folders)}: no clips in split {split!r}")
        self.windows = MixedWindows(
            self.segments,
            {
                source: [headers[n].length for n in chosen]
                for source, chosen in self.segments.items()
            },
            shortest,
            config.stride,
            config.footage_share,
        )
        self.renderings: dict[tuple, list[int]] = defaultdict(list)
        for n, header in enumerate(headers):
            self.renderings[header.motion, header.start].append(n)
        self.headers = headers
        self._told: set[int] = set()  # numbers of shards whose views were found too small
        self._clip = functools.lru_cache(maxsize=config.kept_segments)(self._read)

    def __getstate__(self) -> dict[str, Any]:
        # What is kept in memory does not travel to worker processes.
        return {name: value for name, value in self.__dict__.items() if name != "_clip"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clip = functools.lru_cache(maxsize=self.config.kept_segments)(self._read)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, int]:
        """Which segment, and about where in it."""
        window = self.windows[index]
        return {"segment": window["clip"], "start": window["start"]}

    def clip(self, segment: int) -> Clip:
        """The segment's record."""
        return self._clip(segment)

    def _read(self, segment: int) -> Clip:
        shard, i = self.places[segment]
        clip = self.shards[shard][i]
        self._tell_small(shard, clip.size)
        return clip

    def _tell_small(self, shard: int, size: int) -> None:
        """Log, once, where pictures have to be enlarged; nothing else says why they are soft."""
        c = self.config
        needed = round(c.image_size * VIEW_SCALE / c.view_scale)
        if size < needed and shard not in self._told:
            self._told.add(shard)
            logging.warning(
                "%s: views of %d pixels are enlarged; prepare or render them with --size=%d for "
                "pictures of %d",
                c.folders[shard],
                size,
                needed,
                c.image_size,
            )

    def other_identity(self, segment: int, rng: np.random.Generator) -> int | None:
        """Another identity's rendering of the same motion, where there is one."""
        header = self.headers[segment]
        others = [
            n
            for n in self.renderings[header.motion, header.start]
            if self.headers[n].identity != header.identity
        ]
        return int(rng.choice(others)) if others else None

    def load(self, element: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One example.

        reference (s,s,3), target (t,s,s,3): pictures; reference_face (f,f,3), target_face
        (t,f,f,3): the same people's coarse crops; driving (t,c,c,3), other_driving (o,c,c,3),
        reference_driving (c,c,3): what the motion encoder sees; box (t,3): head boxes against the
        reference's; head_box (t,3): (cy, cx, side) in units of the picture; truth (t,60) with
        has_truth (): see `truth_of`; is_footage (). Pictures are uint8.
        """
        c, segment = self.config, int(element["segment"])
        clip = self.clip(segment)
        length, start = len(clip), int(element["start"])
        if c.consecutive:
            frames = start + np.arange(c.targets)
        else:
            first = min(start + int(rng.integers(c.stride)), length - 1)
            frames = np.array([first, *rng.integers(length, size=c.targets - 1)])
        other = self.other_identity(segment, rng)
        drivers = [clip, clip if other is None else self.clip(other)]
        if other is not None and rng.random() < c.cross_identity:
            drivers.reverse()
        return self._cut(clip, drivers, int(rng.integers(length)), frames, rng)

    def _cut(
        self,
        clip: Clip,
        drivers: list[Clip],
        reference: int,
        frames: np.ndarray,
        rng: np.random.Generator,
    ) -> dict[str, np.ndarray]:
        c = self.config
        colour = (c.picture_augmentation if c.augment else PLAIN).colour(rng)
        crop_augmentation = c.crop_augmentation if c.augment else PLAIN
        views = decode_frames(clip, [reference, *frames])
        window = picture_window(clip.head_box, c.view_scale)
        pictures = [picture_of(colour(view), window, c.image_size) for view in views]
        places = [reference, *frames]

        def crops(source: Clip, chosen, size: int, augmentation: Augmentation, seen=None):
            views = decode_frames(source, chosen) if seen is None else seen
            side = float(np.median(source.head_box[:, 2]))
            return np.stack(
                [
                    driving_picture(view, source.head_box[k], side, size, augmentation, rng)
                    for view, k in zip(views, chosen, strict=True)
                ]
            )

        seen = views[1:] if drivers[0] is clip else None
        faces = crops(clip, places, c.face_size, PLAIN, [colour(view) for view in views])
        head_box = box_in_picture(clip.head_box[places], window)
        return {
            "reference": pictures[0],
            "target": np.stack(pictures[1:]),
            "reference_face": faces[0],
            "target_face": faces[1:],
            "driving": crops(drivers[0], frames, c.crop_size, crop_augmentation, seen),
            "other_driving": crops(
                drivers[1], frames[: c.other_crops], c.crop_size, crop_augmentation
            ),
            "reference_driving": crops(clip, [reference], c.crop_size, PLAIN, views[:1])[0],
            "box": relative_box(head_box[1:], head_box[0]),
            "head_box": head_box[1:],
            "truth": truth_of(clip)[frames],
            "has_truth": np.asarray(has_truth(clip)),
            "is_footage": np.asarray(clip.source == "footage"),
        }

    def truth_statistics(self, segments: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (60,) of `truth_of` over some segments; (0, 1) without any.

        Deviations are at least 0.02: what hardly ever moves is not worth learning.
        """
        chosen = self.segments["actor"]
        places = np.linspace(0, len(chosen) - 1, min(segments, len(chosen))).astype(int)
        clips = [self._read(chosen[int(i)]) for i in places]
        known = [truth_of(clip) for clip in clips if has_truth(clip)]
        if not known:
            return np.zeros(TRUTH, np.float32), np.ones(TRUTH, np.float32)
        rows = np.concatenate(known)
        return rows.mean(axis=0), np.maximum(rows.std(axis=0), 0.02)

    def fixed_batches(self, count: int) -> dict[str, dict[str, np.ndarray]]:
        """The same `count` examples of each source at every call, the reference its first frame.

        Actors are driven by another identity.
        """
        batches = {}
        for source, segments in self.segments.items():
            examples = []
            for n in np.linspace(0, len(segments) - 1, min(count, len(segments))).astype(int):
                segment, rng = segments[int(n)], np.random.default_rng(int(n))
                clip, other = self.clip(segment), self.other_identity(segment, rng)
                frames = np.linspace(len(clip) / 8, len(clip) - 1, self.config.targets).astype(int)
                if self.config.consecutive:
                    first = min(len(clip) // 4, len(clip) - self.config.targets)
                    frames = first + np.arange(self.config.targets)
                drivers = [clip if other is None else self.clip(other), clip]
                examples.append(self._cut(clip, drivers, 0, frames, rng))
            if examples:
                names = examples[0]
                batches[source] = {k: np.stack([e[k] for e in examples]) for k in names}
        return batches


def example_shapes(config: FaceExampleConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what `FaceExamples.load` returns, without any data."""
    c, t = config, config.targets

    def pictures(size: int, *count: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*count, size, size, 3), np.uint8)

    def numbers(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float32)

    flag = jax.ShapeDtypeStruct((), np.bool_)
    return {
        "reference": pictures(c.image_size),
        "target": pictures(c.image_size, t),
        "reference_face": pictures(c.face_size),
        "target_face": pictures(c.face_size, t),
        "driving": pictures(c.crop_size, t),
        "other_driving": pictures(c.crop_size, min(c.other_crops, t)),
        "reference_driving": pictures(c.crop_size),
        "box": numbers(t, 3),
        "head_box": numbers(t, 3),
        "truth": numbers(t, TRUTH),
        "has_truth": flag,
        "is_footage": flag,
    }


def has_truth(clip: Clip) -> bool:
    """Whether the motion behind the clip is known, as it is for synthetic actors."""
    return bool(len(clip.expression) and len(clip.pose))


def truth_of(clip: Clip) -> Float32[np.ndarray, "t 60"]:
    """Expression coefficients and yaw, pitch, roll in radians of each frame; zeros if unknown."""
    if not has_truth(clip):
        return np.zeros((len(clip), TRUTH), np.float32)
    return np.concatenate([clip.expression, clip.pose[:, :3]], axis=1, dtype=np.float32)
