"""Training clips on disk: ArrayRecord shards described by TensorFlow Datasets, without TensorFlow.

One record is one *segment*: at most `LONGEST_SEGMENT` consecutive frames of a clip with their sound
and, for synthetic actors, the truth behind them. This file alone knows the stored features.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from jaxtyping import Float16, Float32, Int8, Int16, UInt8
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.sequential_writer import SequentialWriter

from xactor_jax.errors import InputError

EMOTIONS = ("neutral", "happy", "sad", "angry", "surprised")
FRAME_RATE = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
LONGEST_SEGMENT = 250
RECORDS_PER_SHARD = 256
# What opening looks for: gone first and back last, so that an interrupted replacement reads as "no
# shards", never as a mixture.
_INFO = "dataset_info.json"


def _no(*shape: int, dtype: type) -> Callable[[], np.ndarray]:
    return lambda: np.zeros(shape, dtype)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Clip:
    """A clip of `t` frames, or a segment of one; optional truth has zero rows when unknown.

    Frames are JPEGs of the view, `size` pixels wide; the head box is (cy, cx, side) in units of the
    view's side; pose is yaw, pitch, roll in radians and tx, ty as fractions of the view; gaze is
    (right, up) in radians; phonemes are [start_s, end_s, ipa], seconds from the clip's start.
    """

    clip: str
    source: str
    identity: str
    size: int
    frames: Sequence[bytes]
    head_box: Float32[np.ndarray, "t 3"]
    audio: Int16[np.ndarray, " samples"]
    start: int = 0
    motion: str = ""
    expression: Float16[np.ndarray, "t 57"] = dataclasses.field(
        default_factory=_no(0, 57, dtype=np.float16)
    )
    pose: Float32[np.ndarray, "t 5"] = dataclasses.field(
        default_factory=_no(0, 5, dtype=np.float32)
    )
    gaze: Float32[np.ndarray, "t 2"] = dataclasses.field(
        default_factory=_no(0, 2, dtype=np.float32)
    )
    blink: Float32[np.ndarray, " t"] = dataclasses.field(default_factory=_no(0, dtype=np.float32))
    emotion: Int8[np.ndarray, " t"] = dataclasses.field(default_factory=_no(0, dtype=np.int8))
    intensity: Float32[np.ndarray, " t"] = dataclasses.field(
        default_factory=_no(0, dtype=np.float32)
    )
    phonemes: Sequence[Sequence[Any]] = ()

    def __post_init__(self) -> None:
        if not self.motion:
            object.__setattr__(self, "motion", self.clip)
        length = len(self.frames)
        if len(self.head_box) != length:
            raise ValueError(f"{self.id}: {length} frames but {len(self.head_box)} head boxes")
        if len(self.audio) != length * SAMPLES_PER_FRAME:
            raise ValueError(f"{self.id}: {length} frames but {len(self.audio)} audio samples")
        for name in _TRUTH:
            if len(getattr(self, name)) not in (0, length):
                raise ValueError(f"{self.id}: {name} does not have one row a frame")

    @property
    def id(self) -> str:
        """Unique name of the segment: the clip and its first frame."""
        return f"{self.clip}/{self.start}"

    def __len__(self) -> int:
        return len(self.frames)


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known of a segment without reading its record."""

    clip: str
    start: int
    source: str
    identity: str
    motion: str
    length: int


_TRUTH = ("expression", "pose", "gaze", "blink", "emotion", "intensity")
_TEXTS = ("id", "clip", "source", "identity", "motion", "frames", "phonemes")
_SHAPES: dict[str, tuple[tuple[int | None, ...], type]] = {
    "offsets": ((None,), np.int64),
    "head_box": ((None, 3), np.float32),
    "audio": ((None,), np.int16),
    "expression": ((None, 57), np.float16),
    "pose": ((None, 5), np.float32),
    "gaze": ((None, 2), np.float32),
    "blink": ((None,), np.float32),
    "emotion": ((None,), np.int8),
    "intensity": ((None,), np.float32),
}


def _features() -> tfds.features.FeaturesDict:
    tensors = {
        name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")
        for name, (shape, dtype) in _SHAPES.items()
    }
    texts = {name: tfds.features.Text() for name in _TEXTS}
    return tfds.features.FeaturesDict({**texts, **tensors, "start": np.int64, "size": np.int64})


def _to_record(clip: Clip) -> dict[str, Any]:
    record: dict[str, Any] = {
        name: np.asarray(getattr(clip, name), dtype)
        for name, (_, dtype) in _SHAPES.items()
        if name != "offsets"
    }
    for name in ("id", "clip", "source", "identity", "motion"):
        record[name] = getattr(clip, name)
    record["offsets"] = np.cumsum([0, *map(len, clip.frames)], dtype=np.int64)
    record["frames"] = b"".join(clip.frames)
    record["phonemes"] = json.dumps([list(phoneme) for phoneme in clip.phonemes])
    return record | {"start": clip.start, "size": clip.size}


def _from_record(record: Mapping[str, Any]) -> Clip:
    names = ("clip", "source", "identity", "motion")
    jpegs, offsets = record["frames"], record["offsets"].tolist()
    return Clip(
        **{name: record[name].decode() for name in names},
        **{name: record[name] for name in ("head_box", "audio", *_TRUTH)},
        frames=[jpegs[a:b] for a, b in itertools.pairwise(offsets)],
        start=int(record["start"]),
        size=int(record["size"]),
        phonemes=json.loads(record["phonemes"]),
    )


def segments(clip: Clip, longest: int = LONGEST_SEGMENT) -> Iterator[Clip]:
    """Cut a clip into equally long segments of at most `longest` frames."""
    count = -(-len(clip) // longest)
    if count <= 1:
        yield clip
        return
    edges = [round(i * len(clip) / count) for i in range(count + 1)]
    for a, b in itertools.pairwise(edges):
        rows = {name: getattr(clip, name)[a:b] for name in ("frames", "head_box", *_TRUTH)}
        audio = clip.audio[a * SAMPLES_PER_FRAME : b * SAMPLES_PER_FRAME]
        yield dataclasses.replace(clip, start=clip.start + a, audio=audio, **rows)


def write_shards(folder: str | os.PathLike, splits: Mapping[str, Iterable[Clip]]) -> None:
    """Write clips as the shards of `folder`, replacing those that are there only when all is well.

    Clips longer than a segment are cut; the order is kept; memory holds one clip at a time. The
    same clips give the same bytes.
    """
    folder = Path(folder)
    partial = folder / ".shards.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_splits(partial, splits)
        _replace_shards(folder, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Writer(SequentialWriter):
    """One that writes the features of a record in one order, not in one of each process."""

    class _Sorted(ExampleSerializer):
        def serialize_example(self, example: dict[str, Any]) -> bytes:
            return self.get_tf_example(example).SerializeToString(deterministic=True)

    def __init__(self, info: tfds.core.DatasetInfo):
        super().__init__(info, RECORDS_PER_SHARD, file_format="array_record")
        self._serializer = self._Sorted(info.features.get_serialized_info())


def _write_splits(folder: Path, splits: Mapping[str, Iterable[Clip]]) -> None:
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="clips", version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity, description="Talking-head clips with sound.", features=_features()
    )
    writer = _Writer(info)
    writer.initialize_splits(list(splits))
    for split, clips in splits.items():
        headers = []
        for clip in clips:
            parts = list(segments(clip))
            writer.add_examples({split: [_to_record(part) for part in parts]})
            headers += [_header(part) for part in parts]
        write_index(folder, split, headers)
    writer.close_all()


def remove_shards(folder: str | os.PathLike) -> None:
    """Remove the shards of `folder`, where there are any, and nothing else."""
    for pattern in (_INFO, "features.json", "clips-*.array_record-*", "index-*.json"):
        for old in Path(folder).glob(pattern):
            old.unlink()


def _replace_shards(folder: Path, partial: Path) -> None:
    remove_shards(folder)
    for new in sorted(partial.iterdir(), key=lambda path: path.name == _INFO):
        os.replace(new, folder / new.name)


def _header(clip: Clip) -> Header:
    return Header(clip.clip, clip.start, clip.source, clip.identity, clip.motion, len(clip))


def write_index(folder: Path, split: str, headers: Sequence[Header]) -> None:
    """Write what `open_shards` reads of a split: its segments, without their records."""
    rows = [dataclasses.astuple(header) for header in headers]
    _index(folder, split).write_text(json.dumps(rows))


def _index(folder: Path, split: str) -> Path:
    return folder / f"index-{split}.json"


class Shards:
    """The segments of one split, read at random: `len`, `[i] -> Clip`, `header(i)`, `lengths`.

    Small to pickle: worker processes open the files themselves at the first read.
    """

    def __init__(self, folder: Path, split: str, headers: Sequence[Header]):
        self.folder = folder
        self.split = split
        self._headers = tuple(headers)
        self.lengths = np.array([header.length for header in headers], np.int64)
        self._source: Any = None  # opened at the first read

    def __len__(self) -> int:
        return len(self._headers)

    def header(self, i: int) -> Header:
        """What is known of segment `i` without reading it."""
        return self._headers[i]

    def __getitem__(self, i: int) -> Clip:
        if not -len(self) <= i < len(self):
            raise IndexError(f"segment {i} of {len(self)}")
        if self._source is None:
            _allow_open_files(2 * len(self) // RECORDS_PER_SHARD)
            builder: Any = tfds.builder_from_directory(str(self.folder))
            self._source = builder.as_data_source(self.split)
        source: Any = self._source
        return _from_record(source[int(i) % len(self)])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None}


def _allow_open_files(more: int) -> None:
    """Let this process hold more files, as far as it may: every shard stays open."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limit + more if most == resource.RLIM_INFINITY else min(limit + more, most)
    if wanted > limit != resource.RLIM_INFINITY:
        with contextlib.suppress(ValueError, OSError):  # some systems have a limit beyond that
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def open_shards(folder: str | os.PathLike, split: str) -> Shards:
    """Open one split of the shards in `folder`; a split without clips has length 0.

    Raises:
      InputError: `folder` holds no shards, or not this split.
    """
    folder = Path(folder)
    if split not in splits_of(folder):
        raise InputError(f"{folder}: no split {split!r}; prepare the clips again")
    rows = json.loads(_index(folder, split).read_text())
    return Shards(folder, split, [Header(*row) for row in rows])


def splits_of(folder: str | os.PathLike) -> list[str]:
    """The splits of the shards in `folder`, also those without clips.

    Raises InputError where it holds no shards.
    """
    folder = Path(folder)
    if not (folder / _INFO).is_file():
        raise InputError(
            f"{folder}: no clips here; write some with python -m xactor_jax.prepare, "
            "or actors with python -m xactor_jax.data.actors"
        )
    return sorted(index.stem.removeprefix("index-") for index in folder.glob("index-*.json"))


def held_out_split(folder: str | os.PathLike, frames: int = 1, motions: int = 1) -> str:
    """What a training is measured on: "validation" where it is enough to measure, else "test".

    Args:
      frames: of the shortest segment that can be measured.
      motions: of how many such segments are needed; in footage each clip has its own.

    Raises InputError where `folder` holds no shards.
    """
    chosen = "test"
    if "validation" in splits_of(folder):
        shards = open_shards(folder, "validation")
        headers = [shards.header(i) for i in range(len(shards))]
        if len({h.motion for h in headers if h.length >= frames}) >= motions:
            chosen = "validation"
    logging.info("%s: the training is measured on the split %r", folder, chosen)
    return chosen


def decode_frames(clip: Clip, indices: Iterable[int]) -> UInt8[np.ndarray, "n size size 3"]:
    """Decode the chosen frames of a clip to RGB.

    Raises:
      InputError: a frame is damaged.
    """
    indices = list(indices)
    pictures = np.empty((len(indices), clip.size, clip.size, 3), np.uint8)
    for picture, i in zip(pictures, indices, strict=True):
        decoded = cv2.imdecode(np.frombuffer(clip.frames[i], np.uint8), cv2.IMREAD_COLOR_RGB)
        if decoded is None or decoded.shape != picture.shape:
            raise InputError(f"clip {clip.id}: frame {i} is damaged; prepare the clips again")
        picture[...] = decoded
    return pictures


def encode_frame(view: UInt8[np.ndarray, "size size 3"]) -> bytes:
    """Encode one RGB frame of the view as the JPEG that a clip stores (quality 95)."""
    return cv2.imencode(".jpg", view[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def audio_to_float(audio: Int16[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
    """16-bit samples to float32 in [-1, 1]."""
    return audio.astype(np.float32) / 32768
