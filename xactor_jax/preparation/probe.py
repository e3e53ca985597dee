"""What a media file holds, read from its headers and packets: nothing is decoded."""

from __future__ import annotations

import dataclasses
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from xactor_jax.errors import InputError
from xactor_jax.media.audio import open_media, unreadable
from xactor_jax.media.video import picture_size
from xactor_jax.preparation.settings import Probe

# A transfer characteristic of ITU-T H.273 that needs tone mapping; HLG is made to be seen without.
_PQ = 16


@dataclasses.dataclass(frozen=True)
class Contents:
    """The picture and the sound of a file; times in seconds."""

    height: int
    width: int
    pq: bool  # high dynamic range that comes out grey
    picture_seconds: float
    sound_seconds: float  # the longest of the tracks
    track: int  # of sound, to use: the first that is marked as the default, or the first


def probe(path: str | os.PathLike) -> Contents:
    """Read what a file holds.

    Raises InputError where it is no media file, has no picture or no sound, or is cut off.
    """
    path = Path(path)
    with open_media(path) as container:
        if not container.streams.video:
            raise InputError(f"{path}: no picture in this file; give a video")
        if not container.streams.audio:
            raise InputError(f"{path}: no audio track; give a recording or a video with sound")
        video = container.streams.video[0]
        if any(stream.codec_context is None for stream in (video, *container.streams.audio)):
            raise InputError(f"{path}: a form that FFmpeg does not know; convert it")
        try:
            times, ends = _times(container, video)
        except av.FFmpegError as error:
            raise unreadable(path, "the file is damaged", error) from None
        if not times:
            raise InputError(f"{path}: no picture in this file; give a video")
        step = float(np.median(np.diff(np.sort(times)))) if len(times) > 1 else 0.04
        width, height = picture_size(path, video)
        defaults = [bool(s.disposition & Disposition.default) for s in container.streams.audio]
        return Contents(
            height=height,
            width=width,
            pq=video.codec_context.color_trc == _PQ,
            picture_seconds=max(times) - min(times) + step,
            sound_seconds=max(ends, default=0.0),
            track=defaults.index(True) if any(defaults) else 0,
        )


def refusal(contents: Contents, settings: Probe) -> str:
    """Why a file cannot be used, or nothing."""
    if contents.height * contents.width > settings.largest_pixels:
        return f"pictures of {contents.width} x {contents.height} pixels; reduce them first"
    if settings.hdr and contents.pq:
        return "high dynamic range (PQ); convert it to BT.709 first"
    apart = abs(contents.picture_seconds - contents.sound_seconds)
    if apart > settings.mismatch_seconds:
        return (
            f"{contents.picture_seconds:.1f} s of picture but {contents.sound_seconds:.1f} s of "
            "sound; one of them is cut off"
        )
    return ""


def _times(container, video: av.VideoStream) -> tuple[list[float], list[float]]:
    """Seconds at which every frame is shown, and the seconds of sound in each track."""
    times: list[float] = []
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for packet in container.demux():
        stamp = packet.pts if packet.pts is not None else packet.dts
        if not packet.size or stamp is None:
            continue
        time = float(stamp * (packet.time_base or Fraction(0)))
        if packet.stream is video:
            times.append(time)
        elif packet.stream.type == "audio":
            index = packet.stream.index
            length = float((packet.duration or 0) * (packet.time_base or Fraction(0)))
            first.setdefault(index, time)
            last[index] = max(last.get(index, time), time + length)
    return times, [last[index] - first[index] for index in last]
