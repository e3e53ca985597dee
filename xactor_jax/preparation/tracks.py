"""The faces of a video, followed from shot to shot, and the stretches of them to make clips of."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int, UInt8

from xactor_jax.data.shards import FRAME_RATE
from xactor_jax.media.faces import Face
from xactor_jax.media.tracking import LONGEST_WAIT, SEARCH_EVERY, Box
from xactor_jax.preparation import settings as steps
from xactor_jax.preparation import thumbnails
from xactor_jax.preparation.detectors import open_detector
from xactor_jax.preparation.shots import CutFinder

_SEARCH_EMPTY_EVERY = 5  # frames, while there is no face to follow


@dataclasses.dataclass(eq=False)
class Track:
    """One face from frame `start` on: a box a frame, None where it was not seen."""

    start: int
    boxes: list[Box | None]
    whole: Track | None = None  # what it is a part of

    @property
    def end(self) -> int:
        """The first frame after it."""
        return self.start + len(self.boxes)

    @property
    def unseen(self) -> float:
        """Share of its frames in which it was not seen."""
        return self.boxes.count(None) / len(self.boxes)

    @property
    def side(self) -> float:
        """Median side in pixels."""
        return float(np.median([box[2] for box in self.boxes if box]))


@dataclasses.dataclass(eq=False)
class Shot:
    """Frames from `start` to before `end` without a cut, `shape` (height, width), and its faces."""

    start: int
    end: int
    shape: tuple[int, int]
    tracks: list[Track]
    still: bytes = dataclasses.field(default=b"", repr=False)  # JPEG of a frame of its later half


@dataclasses.dataclass(eq=False)
class _Followed:
    """A track in the making."""

    track: Track
    last: Face
    lost: int = 0

    def step(self, face: Face | None) -> None:
        self.track.boxes.append(face.box if face else None)
        self.lost = 0 if face else self.lost + 1
        self.last = face or self.last

    def finished(self) -> Track:
        while self.track.boxes[-1] is None:
            self.track.boxes.pop()
        return self.track


def find_tracks(
    pictures: Iterable[UInt8[np.ndarray, "h w 3"]], settings: steps.Settings
) -> Iterator[Shot]:
    """Cut a video into shots and follow every face in each; holds one picture at a time.

    Shots too short for a clip have no still, but for the first: a film may have a million.
    """
    cut = CutFinder(settings.shots)
    shot: _ShotInMaking | None = None
    count = 0
    for count, picture in enumerate(pictures):
        changed = cut(picture)
        if shot and (changed or picture.shape[:2] != shot.shape):
            yield shot.finished(count)
            shot = None
        if shot is None:
            shot = _ShotInMaking(count, picture.shape[:2], settings.faces)
        shot.step(count, picture)
    if shot:
        yield shot.finished(count + 1)


class _ShotInMaking:
    def __init__(self, start: int, shape: tuple[int, int], settings: steps.Faces):
        self.start = start
        self.shape = shape
        self.settings = settings
        self.detector = open_detector(settings.detector)
        self.followed: list[_Followed] = []
        self.done: list[Track] = []
        self.still = b""

    def step(self, count: int, picture: np.ndarray) -> None:
        """Follow every face into this frame, and look for new ones now and then."""
        age = count - self.start
        if age & (age - 1) == 0:  # the last power of two is in the later half, wherever it ends
            self.still = thumbnails.of_picture(picture)
        searching = age % (SEARCH_EVERY if self.followed else _SEARCH_EMPTY_EVERY) == 0
        seen = [self.detector.follow(picture, one.last) for one in self.followed]
        found: list[Face] = []
        if searching or not all(seen):
            # Thorough searches are slow, and only for a shot in which no face was ever seen.
            never = not self.followed and not self.done and age <= LONGEST_WAIT * FRAME_RATE
            found = self.detector.find(picture, never and age % SEARCH_EVERY == 0)
        kept = []
        for one, face in zip(self.followed, seen, strict=True):
            face = face or _nearest(found, one.last)
            jumped = face and not one.lost and _distance(face, one.last) > self.settings.jump
            if not jumped:
                one.step(face)
            if jumped or one.lost > self.settings.gap or _met(one, kept):
                self.done.append(one.finished())
            else:
                kept.append(one)
        for face in found:
            if not any(_same_face(face, one.last) for one in kept):
                kept.append(_Followed(Track(count, [face.box]), face))
        self.followed = kept

    def finished(self, end: int) -> Shot:
        """The shot, that ends before this frame."""
        tracks = self.done + [one.finished() for one in self.followed]
        tracks.sort(key=lambda track: track.start)
        for track in tracks:
            if 0 < track.start - self.start <= self.settings.edge:
                track.boxes[:0] = [None] * (track.start - self.start)
                track.start = self.start
            if 0 < end - track.end <= self.settings.edge:
                track.boxes += [None] * (end - track.end)
        if self.start and end - self.start < self.settings.shortest_seconds * FRAME_RATE:
            self.still = b""
        return Shot(self.start, end, self.shape, tracks, self.still)


def _distance(face: Face, last: Face) -> float:
    return float(np.hypot(face.cx - last.cx, face.cy - last.cy)) / last.side


def _same_face(face: Face, last: Face) -> bool:
    return _distance(face, last) < 0.5


def _nearest(found: list[Face], last: Face) -> Face | None:
    near = [face for face in found if _same_face(face, last)]
    return min(near, key=lambda face: _distance(face, last), default=None)


def _met(one: _Followed, kept: list[_Followed]) -> bool:
    """Whether two tracks have come to follow one face."""
    return any(_same_face(one.last, other.last) for other in kept)


def stretches(track: Track, shot: Shot, settings: steps.Faces) -> list[Track]:
    """A track cut into parts no longer than clips may be, where those of its shot are cut too."""
    length = shot.end - shot.start
    count = -(-length // round(settings.longest_seconds * FRAME_RATE))
    edges = [shot.start + round(i * length / count) for i in range(count + 1)]
    parts = []
    for low, high in itertools.pairwise(edges):
        start, end = max(low, track.start), min(high, track.end)
        if end > start:
            boxes = track.boxes[start - track.start : end - track.start]
            parts.append(Track(start, boxes, track))
    return parts


def seen_together(tracks: list[Track]) -> list[list[Track]]:
    """Groups of tracks, in order of time, each with more than half of its time or of another's in
    common with that one; not all of a group need be seen at once."""
    groups: list[list[Track]] = []
    for track in sorted(tracks, key=lambda track: track.start):
        for group in groups:
            if any(
                shared_frames(track, other) > 0.5 * min(len(track.boxes), len(other.boxes))
                for other in group
            ):
                group.append(track)
                break
        else:
            groups.append([track])
    return groups


def foreground(shot: Shot, settings: steps.Faces) -> list[Track]:
    """The tracks long enough for a clip whose faces are not small beside others of that time."""
    least = settings.shortest_seconds * FRAME_RATE
    long = [track for track in shot.tracks if len(track.boxes) >= least and any(track.boxes)]
    return [
        track
        for track in long
        if all(
            track.side >= settings.background * other.side
            for other in long
            if shared_frames(track, other) > 0.5 * len(track.boxes)
        )
    ]


def faces_at_once(tracks: Iterable[Track], shot: Shot) -> Int[np.ndarray, " frames"]:
    """How many of the tracks there are in each frame of their shot."""
    changes = np.zeros(shot.end - shot.start + 1, int)
    for track in tracks:
        changes[track.start - shot.start] += 1
        changes[track.end - shot.start] -= 1
    return np.cumsum(changes)[:-1]


def shared_frames(one: Track, other: Track) -> int:
    """Frames that two tracks have in common."""
    return max(min(one.end, other.end) - max(one.start, other.start), 0)
