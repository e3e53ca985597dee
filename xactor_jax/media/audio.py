"""Sound from any file that FFmpeg reads, and its conversion to what the models hear."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

import av
import numpy as np
import soxr
from jaxtyping import Float32

from xactor_jax.data.shards import SAMPLE_RATE, SAMPLES_PER_FRAME
from xactor_jax.errors import InputError, NoAccess, OutOfMemory

# Time stamps of old containers jitter by a packet. A gap longer than this is missing sound, and
# sound that comes earlier by more than this was there before, up to where a clock began anew.
_GAP_SECONDS = 0.04
_ANEW_SECONDS = 1.0
# What a file may ask for. A few damaged bytes claim hours, and kilobytes unfold to gigabytes.
LONGEST_GAP = 300  # seconds without sound, or before it
LONGEST_HOURS = 12
MOST_SPREAD = 10  # seconds, beside one gap, that a second of sound or of pictures may last for
MOST_PIXELS = 36_000_000  # of a picture in a video; 8K has 33 million
_RATES = (1_000, 768_000)  # Hz
# Formats whose files make FFmpeg open other files or addresses, or make a picture of plain text.
_OTHERS = {
    "applehttp",
    "concat",
    "dash",
    "hls",
    "image2",
    "image2pipe",
    "imf",
    "lavfi",
    "rtp",
    "rtsp",
    "sap",
    "sdp",
    "tty",
    "webm_dash_manifest",
}
_OPTIONS = {
    "format_whitelist": ",".join(sorted(av.formats_available - _OTHERS)),
    "protocol_whitelist": "file",
    "max_pixels": str(MOST_PIXELS),  # while the streams are looked at
}


class Sound:
    """A sound track of a file: each time it is gone through, it is decoded anew, block by block.

    Samples are in [-1, 1]. Sound that starts late is preceded by silence, so sample i is heard
    i / rate seconds after the file's start.

    Args:
      seconds: how much of it is heard; None: all.

    Raises:
      InputError: the file is missing, unreadable or without sound; when it is gone through also
        where the sound is damaged, empty, not finite, or longer than 12 hours.
    """

    def __init__(self, path: str | os.PathLike, track: int = 0, seconds: float | None = None):
        self.path, self.track, self.seconds = Path(path), track, seconds
        with _sound_of(self.path, track) as (_, stream):
            self.rate: int = stream.rate

    def __iter__(self) -> Iterator[Float32[np.ndarray, "samples channels"]]:
        longest, heard = LONGEST_HOURS * 3600 * self.rate, 0
        last = longest if self.seconds is None else round(self.seconds * self.rate)
        with _sound_of(self.path, self.track) as (container, stream):
            for block in _placed(container, stream, self.path):
                if heard + len(block) > longest:
                    raise InputError(f"{self.path}: more than {LONGEST_HOURS} h of sound; cut it")
                yield block[: last - heard]
                heard += len(block)
                if heard >= last:
                    return
        if not heard:
            raise InputError(
                f"{self.path}: the audio is empty; give a recording with some sound in it"
            )


def read_mono_16k(
    path: str | os.PathLike, track: int = 0, seconds: float | None = None
) -> Float32[np.ndarray, " samples"]:
    """Mean of the channels at 16 kHz: round(samples * 16000 / rate) samples, unmoved in time.

    Memory holds the result alone: 230 MB an hour.

    Args:
      seconds: how much is heard; None: all. What is wrong with the rest of the file is not noticed.

    Raises InputError as going through a `Sound` does.
    """
    sound, held, heard = Sound(path, track, seconds), bytearray(), 0
    resampler = soxr.ResampleStream(sound.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for block in sound:
        held += resampler.resample_chunk(block.mean(axis=1, dtype=np.float32)).tobytes()
        heard += len(block)
    held += resampler.resample_chunk(np.zeros(0, np.float32), last=True).tobytes()
    length = round(heard * SAMPLE_RATE / sound.rate)
    held += bytes(max(4 * length - len(held), 0))
    return np.frombuffer(held, np.float32, length)


@contextlib.contextmanager
def _sound_of(
    path: Path, track: int
) -> Generator[tuple[av.container.InputContainer, av.AudioStream]]:
    """A file and a sound track of it, with what goes wrong while it is read as InputErrors."""
    with open_media(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path}: no audio track; give a recording or a video with sound")
        stream = container.streams.audio[track]
        if stream.codec_context is None:
            raise InputError(f"{path}: sound in a form that FFmpeg does not know; export it again")
        if not _RATES[0] <= (stream.rate or 0) <= _RATES[1]:
            raise InputError(f"{path}: sound at {stream.rate} Hz; export it at 16 kHz or more")
        try:
            yield container, stream
        except av.FFmpegError as error:
            raise unreadable(path, "the sound cannot be decoded", error) from None


def has_sound(path: str | os.PathLike) -> bool:
    """Whether a file has an audio track, and one that is not empty.

    Raises InputError where the file is missing or is no audio or video file.
    """
    with open_media(Path(path)) as container:
        if not container.streams.audio:
            return False
        if container.streams.audio[0].codec_context is None:
            return True  # but of an unknown form: `Sound` says so
        try:
            return next(container.decode(container.streams.audio[0]), None) is not None
        except av.FFmpegError:
            return True  # but damaged: going through a `Sound` says so


def open_media(path: Path, *, decoders: bool = True) -> av.container.InputContainer:
    """Open a file for decoding.

    Args:
      decoders: without them nothing is known but what the file's header says.

    Raises:
      InputError: it is missing, a folder, or no audio or video file.
      NoAccess: it may not be read, or its disk fails.
      OutOfMemory: there is too little memory to tell.
    """
    if not _is_file(path):
        raise InputError(f"{path}: no such file")
    options = _OPTIONS if decoders else _OPTIONS | {"codec_whitelist": "none"}
    try:
        # With its protocol, a name such as "concat:a" is a name and nothing else.
        return av.open(f"file:{path}", metadata_errors="replace", options=options)
    except PermissionError as error:
        raise no_access(path, error) from None
    except MemoryError:
        raise _out_of_memory(path) from None
    except (av.FFmpegError, ValueError):
        raise InputError(f"{path}: not an audio or video file that FFmpeg can read") from None


def _is_file(path: Path) -> bool:
    """Whether it is there and no folder. Raises NoAccess where that cannot be told."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise no_access(path, error) from None


def no_access(path: Path, error: OSError) -> NoAccess:
    """The error to raise for a file or folder that the system does not let be looked at."""
    if isinstance(error, PermissionError):
        return NoAccess(f"{path}: may not be read; change its permissions")
    return NoAccess(f"{path}: cannot be read ({error.strerror}); see to its disk and run again")


def unreadable(path: Path, what: str, error: av.FFmpegError) -> InputError:
    """The error to raise for one of FFmpeg: a lack of memory is no fault of the file."""
    if isinstance(error, MemoryError):
        return _out_of_memory(path)
    return InputError(f"{path}: {what} ({error.strerror})")


def _out_of_memory(path: Path) -> OutOfMemory:
    return OutOfMemory(f"{path}: not enough memory to read it; run again with more")


def start_of(container: av.container.InputContainer) -> float:
    """Presentation time in seconds at which the earliest stream of the file starts."""
    return 0.0 if container.start_time is None else container.start_time / av.time_base


def _placed(
    container: av.container.InputContainer, stream: av.AudioStream, path: Path
) -> Iterator[Float32[np.ndarray, "samples channels"]]:
    """The sound in blocks, with silence where there is none for a while, and none of it twice."""
    origin, rate = start_of(container), stream.rate
    length = decoded = 0
    for time, block in _blocks(container, stream, path):
        start = length if time is None else round((time - origin) * rate)
        late = start - length
        if late > 0 and (late > _GAP_SECONDS * rate or length == 0):
            _check_gap(length, start, decoded, rate, path)
            yield from _silence(late, rate, block.shape[1])
            length = start
        elif late < 0 and (length == 0 or _GAP_SECONDS < -late / rate <= _ANEW_SECONDS):
            block = block[-late:]
        decoded += len(block)
        if not np.isfinite(block).all():
            raise InputError(
                f"{path}: the audio holds values that are not numbers; export it again"
            )
        if len(block):
            yield block
        length += len(block)


def _check_gap(length: int, start: int, decoded: int, rate: int, path: Path) -> None:
    """Raise InputError for silence, in samples, from `length` to `start` that is no film's."""
    if start - length > LONGEST_GAP * rate:
        raise InputError(
            f"{path}: no sound for {(start - length) / rate:.0f} s from {length / rate:.2f} s on; "
            "cut the file there"
        )
    if start > LONGEST_GAP * rate + MOST_SPREAD * decoded:
        raise InputError(
            f"{path}: only {decoded / rate:.2f} s of sound in {start / rate:.0f} s; cut out what "
            "can be heard"
        )


def _silence(
    samples: int, rate: int, channels: int
) -> Iterator[Float32[np.ndarray, "samples channels"]]:
    """Silence in blocks of a second."""
    second = np.zeros((rate, channels), np.float32)
    for start in range(0, samples, rate):
        yield second[: samples - start]


def _blocks(
    container: av.container.InputContainer, stream: av.AudioStream, path: Path
) -> Iterator[tuple[float | None, Float32[np.ndarray, "samples channels"]]]:
    """Decoded blocks with their presentation times in seconds."""
    # Not planar: PyAV 18 reads beyond the planes of eight channels, and the process dies.
    packed = av.AudioResampler(format="flt")
    for frame in container.decode(stream):
        time = frame.time
        try:
            blocks = packed.resample(frame)
        except ValueError:  # of another rate, or with other channels
            raise InputError(
                f"{path}: the sound changes its format at {time or 0:.2f} s; export it again"
            ) from None
        for block in blocks:
            yield time, block.to_ndarray().reshape(block.samples, -1)
            time = None  # what else there is of it follows at once


def frames_of(samples: int) -> int:
    """Number of video frames that cover so many samples at 16 kHz."""
    return -(-samples // SAMPLES_PER_FRAME)
