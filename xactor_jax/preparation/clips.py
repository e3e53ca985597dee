"""One file to its clips: the steps in their order."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xactor_jax.data import shards
from xactor_jax.data.shards import FRAME_RATE, SAMPLES_PER_FRAME, Clip
from xactor_jax.errors import InputError
from xactor_jax.media import faces
from xactor_jax.media.audio import frames_of, read_mono_16k
from xactor_jax.media.video import read_video
from xactor_jax.preparation import duplicates, folders, quality, sound, sync
from xactor_jax.preparation.probe import probe, refusal
from xactor_jax.preparation.quality import ViewMeter
from xactor_jax.preparation.settings import Settings
from xactor_jax.preparation.speaker import Mouth, refusals
from xactor_jax.preparation.thumbnails import of_views
from xactor_jax.preparation.tracks import (
    Shot,
    Track,
    faces_at_once,
    find_tracks,
    foreground,
    seen_together,
    stretches,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A clip with what the report, the tables and the search for copies need of it."""

    clip: Clip
    start_seconds: float  # in the file
    end_seconds: float
    offset_frames: int | None  # that were mended; positive: the sound was late; None: not known
    checks: dict[str, float]
    thumbnail: bytes  # JPEG of its first, middle and last view
    fingerprint: np.ndarray
    picture: np.ndarray
    curve: tuple[float, ...] = ()  # agreement of mouth and sound, of a clip too short by itself


@dataclasses.dataclass(frozen=True, eq=False)
class Refused:
    """A stretch of a file, or all of it, that cannot be used, and why."""

    reason: str
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    checks: dict[str, float] = dataclasses.field(default_factory=dict)
    thumbnail: bytes = dataclasses.field(default=b"", repr=False)
    again: bool = False  # whether another run should try; it may have more memory, or time


@dataclasses.dataclass(eq=False)
class _Candidate:
    """A stretch of one face that is being cut out of the pictures."""

    track: Track
    heads: np.ndarray
    window: tuple[float, float, float]
    second_face: float
    frames: list[bytes] = dataclasses.field(default_factory=list)
    meter: ViewMeter = dataclasses.field(default_factory=ViewMeter)

    @property
    def seconds(self) -> tuple[float, float]:
        return self.track.start / FRAME_RATE, self.track.end / FRAME_RATE


def prepare_file(
    path: Path,
    name: str,
    identity: str,
    settings: Settings,
    between: tuple[float, float | None] = (0.0, None),
) -> Iterator[Prepared | Refused]:
    """Find, cut, measure and mend the clips of a file; each is given on as soon as it is done.

    Args:
      between: seconds of the file that are looked at; None: to its end.

    Raises InputError where the file cannot be read, or not be used by what it says of itself.
    """
    start = round(between[0] * FRAME_RATE) / FRAME_RATE
    for one in _clips_of(path, name, identity, settings, between):
        yield dataclasses.replace(
            one, start_seconds=one.start_seconds + start, end_seconds=one.end_seconds + start
        )


def _clips_of(
    path: Path,
    name: str,
    identity: str,
    settings: Settings,
    between: tuple[float, float | None],
) -> Iterator[Prepared | Refused]:
    if os.fsencode(name) != name.encode("utf-8", "replace"):
        raise InputError(f"{path}: its name is not UTF-8; rename it")
    contents = probe(path)
    if reason := refusal(contents, settings.probe):
        raise InputError(f"{path}: {reason}")
    # At frames, where `read_video` cuts the picture: they would be half a frame out of step.
    cuts = [None if time is None else round(time * FRAME_RATE) for time in between]
    heard = slice(*(None if cut is None else cut * SAMPLES_PER_FRAME for cut in cuts))
    audio = read_mono_16k(path, contents.track)[heard]
    longest = settings.probe.longest_side
    shots = list(find_tracks(read_video(path, longest, *between), settings))
    length = min(shots[-1].end, frames_of(len(audio))) / FRAME_RATE
    seen = (shot for shot in shots if shot.still)
    still = max(seen, key=lambda shot: shot.end - shot.start).still
    if length < settings.faces.shortest_seconds:
        reason = f"only {length:.2f} s with picture and sound"
        yield Refused(reason, 0.0, length, thumbnail=still)
        return
    groups, refused = _candidates(shots, frames_of(len(audio)), settings)
    yield from refused
    if not groups and not refused:
        yield Refused(_no_face(shots, settings), 0.0, length, thumbnail=still)
        return
    source = dataclasses.replace(
        _EMPTY, clip=name, identity=identity, motion=name, size=settings.size
    )
    named: collections.Counter[str] = collections.Counter()
    for group in _cut(read_video(path, longest, *between), groups, settings.size):
        yield from _told_apart(_of_group(group, audio, source, settings), named)
        del group  # its views, while those of the next are cut


def _told_apart(
    results: Iterable[Prepared | Refused], named: collections.Counter[str]
) -> Iterator[Prepared | Refused]:
    """The same with clips of two faces that begin at one time under names of their own."""
    for one in results:
        if isinstance(one, Prepared):
            name = one.clip.clip
            named[name] += 1
            if named[name] > 1:
                name += f"@face{named[name]}"
                clip = dataclasses.replace(one.clip, clip=name, motion=name)
                one = dataclasses.replace(one, clip=clip)
        yield one


_EMPTY = Clip(
    clip="",
    source="footage",
    identity="",
    size=0,
    frames=[],
    head_box=np.zeros((0, 3), np.float32),
    audio=np.zeros(0, np.int16),
)


def _no_face(shots: list[Shot], settings: Settings) -> str:
    longest = max((len(t.boxes) for shot in shots for t in shot.tracks), default=0)
    if longest:
        return (
            f"no face stays for {settings.faces.shortest_seconds:g} s without a cut, the longest "
            f"for {longest / FRAME_RATE:.2f} s"
        )
    return "no face found; show one person from the front"


def _candidates(
    shots: list[Shot], heard: int, settings: Settings
) -> tuple[list[list[_Candidate]], list[Refused]]:
    """Groups of faces seen together that are to be cut, and the stretches already refused."""
    groups: list[list[_Candidate]] = []
    refused: list[Refused] = []
    for shot in shots:
        parts = [
            part
            for track in foreground(shot, settings.faces)
            for part in stretches(track, shot, settings.faces)
        ]
        for part in parts:
            del part.boxes[max(heard - part.start, 0) :]
        at_once = faces_at_once(parts, shot)
        for together in seen_together(parts):
            start, end = together[0].start, max(part.end for part in together)
            most = at_once[start - shot.start : end - shot.start].max(initial=0)
            if most > settings.faces.most:  # their views, held at once, would fill the memory
                reason = f"{most} faces at one time; show {settings.faces.most} at most"
                seconds = start / FRAME_RATE, end / FRAME_RATE
                refused.append(Refused(reason, *seconds, thumbnail=shot.still))
                continue
            group = []
            for part in together:
                try:
                    group.append(_candidate(part, shot, settings))
                except InputError as error:
                    seconds = part.start / FRAME_RATE, part.end / FRAME_RATE
                    refused.append(Refused(str(error), *seconds, thumbnail=shot.still))
            if group:
                groups.append(group)
    return groups, refused


def _candidate(part: Track, shot: Shot, settings: Settings) -> _Candidate:
    if len(part.boxes) < settings.faces.shortest_seconds * FRAME_RATE:
        raise InputError(f"only {len(part.boxes) / FRAME_RATE:.2f} s with picture and sound")
    heads = faces.head_track(part.boxes)
    window = faces.view_window(heads, *shot.shape)
    return _Candidate(part, heads, window, _second_face(part, shot, window))


def _second_face(part: Track, shot: Shot, window: tuple[float, float, float]) -> float:
    """Side of the largest other face seen in the view in 3 frames or more, against this one."""
    cy, cx, side = window
    sides = [0.0]
    for other in shot.tracks:
        start, end = max(other.start, part.start), min(other.end, part.end)
        if other is part.whole:
            continue
        boxes = other.boxes[start - other.start : max(end - other.start, 0)]
        inside = [
            box[2]
            for box in boxes
            if box and abs(box[0] - cy) < side / 2 and abs(box[1] - cx) < side / 2
        ]
        if len(inside) >= 3:
            sides.append(float(np.median(inside)))
    return max(sides) / part.side


def _cut(pictures, groups: list[list[_Candidate]], size: int) -> Iterator[list[_Candidate]]:
    """Cut the views of all candidates in one pass; gives a group on when its last is done.

    Groups are taken out of the list as they are given on: their views are most of what a long
    file would leave in memory.
    """
    groups.sort(key=lambda group: group[0].track.start)
    for count, picture in enumerate(pictures):
        if not groups:
            return
        for one in (one for group in groups for one in group):
            if one.track.start <= count < one.track.end:
                view = faces.cut_view(picture, one.window, size)
                one.frames.append(shards.encode_frame(view))
                head = faces.to_view(one.heads[[count - one.track.start]], one.window)[0]
                one.meter.add(view, head)
        done = [group for group in groups if all(one.track.end <= count + 1 for one in group)]
        if done:
            groups[:] = [group for group in groups if group not in done]
            while done:
                yield done.pop(0)
    if groups:
        raise InputError("the picture breaks off when read again")


def _of_group(
    group: list[_Candidate], audio: np.ndarray, source: Clip, settings: Settings
) -> Iterator[Prepared | Refused]:
    """The clips of faces that are seen at the same time, of those that speak."""
    reasons = [""] * len(group)
    if settings.speaker.enabled and len(group) > 1:
        mouths = [Mouth(one.track.start, np.stack(one.meter.mouth)) for one in group]
        reasons = refusals(mouths, audio, settings.speaker, settings.sync.most)
    for one, reason in zip(group, reasons, strict=True):
        if reason:
            yield Refused(reason, *one.seconds, thumbnail=of_views(one.frames))
        else:
            yield _of_candidate(one, audio, source, settings)


def _of_candidate(
    one: _Candidate, audio: np.ndarray, source: Clip, settings: Settings
) -> Prepared | Refused:
    start, end = one.track.start, one.track.end
    here = _between(audio, start, end)
    measured = one.meter.measures(one.track.side, one.track.unseen, one.second_face)
    heard = sound.measure(here)
    checks = dataclasses.asdict(measured) | dataclasses.asdict(heard)
    reason = quality.refusal(measured, settings.quality) or sound.refusal(heard, settings.sound)
    late: int | None = None
    shift = 0
    if not reason and settings.sync.enabled and _long_enough(one, settings):
        mouth = np.stack(one.meter.mouth)
        found = sync.offset(sync.agreement(mouth, here, settings.sync.most))
        checks |= {"sync_peak": found.peak, "sync_margin": found.margin}
        checks["sync_frames"] = found.frames
        if found.sure(settings.sync):
            late = shift = found.frames if abs(found.frames) >= settings.sync.smallest else 0
        elif settings.sync.unsure:
            reason = (
                f"mouth and sound do not clearly go together: {found.peak:.2f}, "
                f"{found.margin:.2f} above the rest"
            )
    if not reason:
        # Where the sound was late, what belongs to a frame comes later; the ends may lack it.
        start = max(start, -shift)
        end = min(end, len(audio) // SAMPLES_PER_FRAME - shift) if shift > 0 else end
        if end - start < settings.faces.shortest_seconds * FRAME_RATE:
            reason = f"only {max(end - start, 0) / FRAME_RATE:.2f} s once the sound is in step"
    checks = {key: value for key, value in checks.items() if math.isfinite(value)}
    if reason:
        return Refused(reason, *one.seconds, checks, of_views(one.frames))
    return _prepared(
        one,
        (start, end),
        late,
        _between(audio, start + shift, end + shift),
        source,
        checks,
        settings,
    )


def _curve(one: _Candidate, heard: np.ndarray, settings: Settings) -> tuple[float, ...]:
    """What a clip that is too short by itself says of its folder's offset."""
    wanted = settings.sync.enabled and settings.sync.pooled and not _long_enough(one, settings)
    if not wanted or len(one.frames) < folders.FEWEST_FRAMES:
        return ()
    return tuple(sync.agreement(np.stack(one.meter.mouth), heard, folders.MOST).tolist())


def _long_enough(one: _Candidate, settings: Settings) -> bool:
    return len(one.frames) >= settings.sync.shortest_seconds * FRAME_RATE


def _between(audio: np.ndarray, start: int, end: int) -> np.ndarray:
    """The sound of frames `start` to before `end`, with silence where there is none."""
    samples = np.zeros((end - start) * SAMPLES_PER_FRAME, np.float32)
    part = audio[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
    samples[: len(part)] = part
    return samples


def _prepared(
    one: _Candidate,
    span: tuple[int, int],
    late: int | None,
    heard: np.ndarray,
    source: Clip,
    checks: dict[str, Any],
    settings: Settings,
) -> Prepared:
    kept = slice(span[0] - one.track.start, span[1] - one.track.start)
    place = f"@{one.track.start / FRAME_RATE:.2f}" if one.track.start else ""
    loud = sound.normalised(heard, checks.get("loudness", -math.inf), settings.sound)
    name = source.clip + place
    clip = dataclasses.replace(
        source,
        clip=name,
        motion=name,
        frames=one.frames[kept],
        head_box=faces.to_view(one.heads[kept], one.window),
        audio=np.round(np.clip(loud, -1, 1) * 32767).astype(np.int16),
    )
    return Prepared(
        clip=clip,
        start_seconds=span[0] / FRAME_RATE,
        end_seconds=span[1] / FRAME_RATE,
        offset_frames=late,
        checks=checks,
        thumbnail=of_views(clip.frames),
        fingerprint=duplicates.fingerprint(heard),
        picture=one.meter.picture,
        curve=_curve(one, heard, settings),
    )
