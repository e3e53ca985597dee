"""Sound from any file that FFmpeg reads, and its conversion to what the models hear."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soxr
from jaxtyping import Float32

from xactor_jax.data.shards import SAMPLE_RATE, SAMPLES_PER_FRAME
from xactor_jax.errors import InputError

# Time stamps of old containers jitter by a packet; a gap longer than this is missing sound.
_GAP_SECONDS = 0.04


def read_audio(
    path: str | os.PathLike, track: int = 0
) -> tuple[Float32[np.ndarray, "samples channels"], int]:
    """Decode a sound track of an audio or video file, from its presentation time 0.

    Returns:
      Samples in [-1, 1] and their rate in Hz. Sound that starts late is preceded by silence, so
      sample i is heard i / rate seconds after the file's start.

    Raises:
      InputError: the file is missing, unreadable, without sound, empty or not finite.
    """
    rate, blocks = _decoded(Path(path), track)
    parts = list(blocks)
    return np.concatenate(parts), rate


def read_mono_16k(path: str | os.PathLike, track: int = 0) -> Float32[np.ndarray, " samples"]:
    """The same sound as `to_mono_16k(*read_audio(path, track))` makes it, a block at a time.

    Memory holds the result alone: 230 MB an hour.
    """
    rate, blocks = _decoded(Path(path), track)
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")
    parts, read = [], 0
    for block in blocks:
        parts.append(stream.resample_chunk(block.mean(axis=1, dtype=np.float32)))
        read += len(block)
    parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return _of_length(np.concatenate(parts), round(read * SAMPLE_RATE / rate))


def _decoded(
    path: Path, track: int
) -> tuple[int, Iterator[Float32[np.ndarray, "samples channels"]]]:
    """The rate of a track, and its checked blocks with silence where there is no sound."""
    with open_media(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path}: no audio track; give a recording or a video with sound")
        rate = container.streams.audio[track].rate
    return rate, _checked(path, track)


def _checked(path: Path, track: int) -> Iterator[Float32[np.ndarray, "samples channels"]]:
    length = 0
    with open_media(path) as container:
        try:
            for block in _placed(container, container.streams.audio[track]):
                if not np.isfinite(block).all():
                    raise InputError(
                        f"{path}: the audio holds values that are not numbers; export it again"
                    )
                length += len(block)
                yield block
        except av.FFmpegError as error:
            raise InputError(f"{path}: the sound cannot be decoded ({error.strerror})") from None
    if not length:
        raise InputError(f"{path}: the audio is empty; give a recording with some sound in it")


def has_sound(path: str | os.PathLike) -> bool:
    """Whether a file has an audio track, and one that is not empty.

    Raises InputError where the file is missing or is no audio or video file.
    """
    with open_media(Path(path)) as container:
        if not container.streams.audio:
            return False
        try:
            return next(container.decode(container.streams.audio[0]), None) is not None
        except av.FFmpegError:
            return True  # but damaged: `read_audio` says so


def open_media(path: Path) -> av.container.InputContainer:
    """Open a file for decoding.

    Raises:
      InputError: it is missing, a folder, or no audio or video file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, ValueError):
        raise InputError(f"{path}: not an audio or video file that FFmpeg can read") from None


def start_of(container: av.container.InputContainer) -> float:
    """Presentation time in seconds at which the earliest stream of the file starts."""
    return 0.0 if container.start_time is None else container.start_time / av.time_base


def _placed(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[Float32[np.ndarray, "samples channels"]]:
    """Decoded blocks, and silence before those that start late."""
    origin = start_of(container)
    length = 0
    for time, block in _blocks(container, stream):
        start = length if time is None else round((time - origin) * stream.rate)
        if start > length and (start - length > _GAP_SECONDS * stream.rate or length == 0):
            yield np.zeros((start - length, block.shape[1]), np.float32)
            length = start
        elif start < 0 and length == 0:
            block = block[-start:]
        yield block
        length += len(block)


def _blocks(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[tuple[float | None, Float32[np.ndarray, "samples channels"]]]:
    """Decoded blocks with their presentation times in seconds."""
    planar = av.AudioResampler(format="fltp")
    for frame in container.decode(stream):
        time = frame.time
        for block in planar.resample(frame):
            yield time, block.to_ndarray().T


def to_mono_16k(
    samples: Float32[np.ndarray, "samples channels"] | Float32[np.ndarray, " samples"], rate: int
) -> Float32[np.ndarray, " resampled"]:
    """Mean of the channels at 16 kHz: round(samples * 16000 / rate) samples, unmoved in time."""
    mono = samples.mean(axis=1, dtype=np.float32) if samples.ndim == 2 else samples
    length = round(len(mono) * SAMPLE_RATE / rate)
    return _of_length(
        soxr.resample(mono.astype(np.float32), rate, SAMPLE_RATE, quality="HQ"), length
    )


def _of_length(samples: Float32[np.ndarray, " n"], length: int) -> Float32[np.ndarray, " length"]:
    return np.pad(samples[:length], (0, max(length - len(samples), 0)))


def frames_of(samples: int) -> int:
    """Number of video frames that cover so many samples at 16 kHz."""
    return -(-samples // SAMPLES_PER_FRAME)
