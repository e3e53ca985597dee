"""Frames from any video file at 25 a second, and frames with sound to MP4."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
import soxr
from av.video.plane import VideoPlane
from jaxtyping import Float32, UInt8, UInt16

from xactor_jax.data.shards import FRAME_RATE
from xactor_jax.errors import InputError
from xactor_jax.media.audio import (
    LONGEST_HOURS,
    MOST_PIXELS,
    MOST_SPREAD,
    open_media,
    start_of,
    unreadable,
)

_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_AAC_FALLBACK = 48000
_AUDIO_BLOCK = 1024
_PLANAR = {  # forms whose planes can be reduced, and their pixels
    **{f"yuv{full}{chroma}p": np.uint8 for full in ("", "j") for chroma in (420, 422, 444)},
    **{f"yuv{chroma}p10le": np.uint16 for chroma in (420, 422, 444)},
}
LONGEST_STILL = 60  # seconds that one frame may be shown
Block = Float32[np.ndarray, "samples channels"]


def read_video(
    path: str | os.PathLike,
    longest_side: int = 1920,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """RGB frames at 25 a second: frame k is the one shown nearest to k / 25 s after the start.

    Upright (rotation tags obeyed), with square pixels, one frame in memory at a time.

    Args:
      longest_side: larger pictures are reduced to this many pixels.
      start, end: seconds between which frames are given; None: to the last one.

    Raises:
      InputError: the file is missing, is no video, has no picture, cannot be decoded, or claims
        what no film has: 36 million pixels, 12 hours, a minute without a new frame, or for long
        fewer than two and a half a second.
    """
    path = Path(path)
    with open_media(path) as container:
        if not container.streams.video:
            raise InputError(f"{path}: no picture in this file; give a video")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{path}: a picture in a form that FFmpeg does not know; convert it")
        width, height = picture_size(path, stream)
        if width * height > MOST_PIXELS:
            raise InputError(f"{path}: pictures of {width} x {height}; reduce them")
        try:
            empty = True
            frames = _resampled(_timed(container, path))
            last = None if end is None else round(end * FRAME_RATE)
            for frame in itertools.islice(frames, round(start * FRAME_RATE), last):
                yield _upright(frame, stream.sample_aspect_ratio, longest_side)
                empty = False
        except av.FFmpegError as error:
            raise unreadable(path, "the picture cannot be decoded", error) from None
        if empty:
            raise InputError(f"{path}: no picture in this file; give a video")


def picture_size(path: Path, stream: av.VideoStream) -> tuple[int, int]:
    """Width and height of a file's pictures; zeros where only the pictures themselves say."""
    if stream.width and stream.height:
        return stream.width, stream.height
    # Decoders forget a size that is beyond their limit.
    with open_media(path, decoders=False) as container:
        found = [(header.width, header.height) for header in container.streams.video]
    return found[0] if found else (0, 0)


def frames_expected(path: str | os.PathLike) -> int | None:
    """About how many frames `read_video` will give; None where the file does not say.

    Raises InputError as `read_video` does for a file that cannot be opened.
    """
    with open_media(Path(path)) as container:
        return container.duration and round(container.duration / av.time_base * FRAME_RATE)


def _timed(
    container: av.container.InputContainer, path: Path
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Decoded frames with the seconds from the file's start to their start and to their end."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # also of later pictures
    rate = stream.average_rate or stream.guessed_rate or FRAME_RATE
    origin, end = start_of(container), 0.0
    for count, frame in enumerate(container.decode(stream)):
        start = end if frame.time is None else frame.time - origin
        if start - end > LONGEST_STILL:
            raise InputError(
                f"{path}: the picture stands still for {start - end:.0f} s from {end:.2f} s on; "
                "cut the file there"
            )
        if start > LONGEST_STILL + MOST_SPREAD * count / FRAME_RATE:
            raise InputError(f"{path}: only {count} pictures in {start:.0f} s; cut out what moves")
        if start > LONGEST_HOURS * 3600:
            raise InputError(f"{path}: longer than {LONGEST_HOURS} h; cut it")
        length = float(frame.duration * (frame.time_base or 0) or 1 / rate)
        # The last frame's length may be nonsense, and so may the frame rate.
        end = start + (length if 0 < length <= LONGEST_STILL else 1 / FRAME_RATE)
        yield start, end, frame


def _resampled(timed: Iterator[tuple[float, float, av.VideoFrame]]) -> Iterator[av.VideoFrame]:
    """For each k the frame whose start is nearest to k / 25 s, to the end of the last."""
    count, end, shown, shown_start = 0, 0.0, None, 0.0
    for start, frame_end, frame in timed:
        while shown is not None and count / FRAME_RATE < (shown_start + start) / 2:
            yield shown
            count += 1
        shown, shown_start, end = frame, start, frame_end
    while shown is not None and (count == 0 or (count + 0.5) / FRAME_RATE < end):
        yield shown
        count += 1


def _upright(
    frame: av.VideoFrame, aspect: Fraction | None, longest_side: int
) -> UInt8[np.ndarray, "h w 3"]:
    width, height = round(frame.width * (aspect or 1)), frame.height
    reduction = min(1.0, longest_side / max(width, height))
    size = max(round(width * reduction), 1), max(round(height * reduction), 1)
    reduced = _reduced(frame, *size) if reduction < 1 and _planar(frame) else frame
    picture = reduced.to_ndarray(format="rgb24")
    if picture.shape[1::-1] != size:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    quarters = round(frame.rotation / 90) if math.isfinite(frame.rotation) else 0
    return np.ascontiguousarray(np.rot90(picture, quarters))


def _planar(frame: av.VideoFrame) -> bool:
    """Whether its pixels lie in planes; PyAV's buffers of upside-down ones lie beside them."""
    return frame.format.name in _PLANAR and all(plane.line_size > 0 for plane in frame.planes)


def _reduced(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """A smaller picture of the same planes: of 4K in half the time that RGB of that size takes."""
    small = av.VideoFrame(width, height, frame.format.name)
    dtype = _PLANAR[frame.format.name]
    for whole, plane in zip(frame.planes, small.planes, strict=True):
        size = plane.width, plane.height
        _pixels(plane, dtype)[:] = cv2.resize(
            _pixels(whole, dtype), size, interpolation=cv2.INTER_AREA
        )
    for meaning in ("colorspace", "color_range", "color_trc", "color_primaries"):
        setattr(small, meaning, getattr(frame, meaning))
    return small


def _pixels(plane: VideoPlane, dtype: type) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]:
    rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
    return rows[:, : plane.width]


class VideoWriter:
    """An MP4 file (H.264 and AAC) that frames are pushed into; it appears when all is written.

        with VideoWriter("out.mp4", 512, audio=([samples], rate)) as video:
            for frame in frames:
                video.push(frame)

    The sound keeps its own rate and lies in the file in step with the frames. The same frames and
    sound give the same bytes. An error inside the block leaves no file behind.

    Args:
      path: where the file will be; an older one is replaced at the end.
      size: side of the square frames, or (height, width), even numbers.
      audio: blocks of float32 samples in [-1, 1], (n, channels), and their rate in Hz; they are
        asked for as the frames come.

    Raises:
      InputError: the folder is missing or cannot be written to, or going through `audio` says so.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        size: int | tuple[int, int],
        fps: int = FRAME_RATE,
        audio: tuple[Iterable[Block], int] | None = None,
    ):
        self.path = Path(path)
        self.height, self.width = (size, size) if isinstance(size, int) else size
        if self.height % 2 or self.width % 2:
            raise ValueError(f"frames of {self.height} x {self.width}: H.264 needs even sides")
        self.fps = fps
        self.count = 0
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        check_output(self.path)
        sound = None if audio is None else _encodable(*audio)  # which may fail: before any file
        self._container = _create(self._partial, self.path)
        self._video = self._add_video()
        self._sound: Iterator[Block] = iter(())
        self._audio: av.AudioStream | None = None
        self._heard = 0
        if sound is not None:
            self._sound, rate, channels = sound
            layout = "mono" if channels == 1 else "stereo"
            self._audio = self._container.add_stream("aac", rate=rate, layout=layout)
            self._audio.bit_rate = 96_000 * channels

    def _add_video(self) -> av.VideoStream:
        # The number of threads changes x264's output, so it is fixed, not the machine's. Its
        # macroblock tree reads memory that was never set: of a hundred equal small videos, eight
        # came out different.
        options = {"crf": "18", "preset": "fast", "x264-params": "mbtree=0"}
        stream = self._container.add_stream("libx264", rate=self.fps, options=options)
        stream.height, stream.width, stream.pix_fmt = self.height, self.width, "yuv420p"
        context = stream.codec_context
        context.thread_count = 4
        context.thread_type = "FRAME"
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1
        return stream

    def push(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Add one RGB frame, and the sound that is heard while it is shown."""
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"frame of shape {frame.shape} and {frame.dtype}, not uint8 "
                f"({self.height}, {self.width}, 3)"
            )
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        picture.pts, picture.time_base = self.count, Fraction(1, self.fps)
        self._container.mux(self._video.encode(picture))
        self.count += 1
        self._push_sound(self.count / self.fps)

    def _push_sound(self, until: float) -> None:
        """Encode the sound up to a time in seconds, in whole blocks of the codec."""
        if self._audio is None:
            return
        rate = self._audio.rate
        while self._heard < until * rate and (block := next(self._sound, None)) is not None:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block.T), format="fltp", layout=self._audio.layout.name
            )
            frame.pts, frame.rate, frame.time_base = self._heard, rate, Fraction(1, rate)
            self._container.mux(self._audio.encode(frame))
            self._heard += len(block)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                self._container.close()
        except av.FFmpegError as failure:
            raise InputError(f"{self.path}: cannot be written ({failure.strerror})") from None
        finally:
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        self._push_sound(float("inf"))
        self._container.mux(self._video.encode(None))
        if self._audio is not None:
            self._container.mux(self._audio.encode(None))
        self._container.close()
        os.replace(self._partial, self.path)


def check_output(path: str | os.PathLike) -> None:
    """Raise InputError where no video can be written, before work is spent on it."""
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; name a file, such as video.mp4")
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: the output is an MP4 file; end its name in .mp4")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} cannot be written to; choose another")


def _create(partial: Path, path: Path) -> av.container.OutputContainer:
    try:
        # bitexact leaves version strings and dates out; faststart lets players begin at once.
        return av.open(
            str(partial),
            "w",
            format="mp4",
            options={"movflags": "+faststart", "fflags": "+bitexact"},
        )
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _encodable(blocks: Iterable[Block], rate: int) -> tuple[Iterator[Block], int, int]:
    """Sound in blocks of the codec, at a rate that AAC has; that rate, and one or two channels."""
    sound = (block.mean(axis=1, keepdims=True) if block.shape[1] > 2 else block for block in blocks)
    first = next(sound)
    channels, sound = first.shape[1], itertools.chain([first], sound)
    if rate not in _AAC_RATES:
        sound, rate = _at_fallback_rate(sound, rate, channels), _AAC_FALLBACK
    return (np.clip(block, -1, 1) for block in _in_blocks(sound)), rate, channels


def _at_fallback_rate(sound: Iterable[Block], rate: int, channels: int) -> Iterator[Block]:
    resampler = soxr.ResampleStream(rate, _AAC_FALLBACK, channels, dtype="float32")
    for block in sound:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def _in_blocks(sound: Iterable[Block]) -> Iterator[Block]:
    """The same sound, each block but the last of the codec's length."""
    rest: Block | None = None
    for block in sound:
        joined = block if rest is None else np.concatenate([rest, block])
        whole = len(joined) // _AUDIO_BLOCK * _AUDIO_BLOCK
        for start in range(0, whole, _AUDIO_BLOCK):
            yield joined[start : start + _AUDIO_BLOCK]
        rest = joined[whole:]
    if rest is not None and len(rest):
        yield rest
