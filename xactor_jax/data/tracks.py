"""Motion latents and audio features of whole clips, on disk: what the motion transformer reads.

A folder of tracks holds one array a kind, all clips one after another, and `tracks.json`: which
clips they are, and what made them. Arrays are mapped, not read, so that their number costs nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from xactor_jax.errors import InputError

ARRAYS = ("latents", "audio", "direction")
_INDEX = "tracks.json"
_ENDS = 2**16  # bytes of a shard's beginning and end that stand for all of it


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """One clip: a motion latent, a row of audio features, and what is known of it a frame."""

    clip: str
    source: str
    identity: str
    latents: Float[np.ndarray, "t d"]
    audio: Float[np.ndarray, "t f"]
    direction: Float[np.ndarray, "t w"]  # data/direction.py


class Tracks(Sequence[Track]):
    """The tracks of some folders, one after another; they are read when they are looked at.

    Small to pickle: worker processes map the arrays themselves.
    """

    def __init__(self, folders: Sequence[Path]):
        self._folders = list(folders)
        self._names: list[list[str]] = []
        places = []  # folder, first and last frame of each clip
        for n, folder in enumerate(folders):
            first = 0
            for *names, length in read_index(folder)["clips"]:
                self._names.append(names)
                places.append((n, first, first + length))
                first += length
        self._places = np.array(places, np.int64).reshape(-1, 3)
        self._arrays: dict[int, list[np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(f"track {i} of {len(self)}")
        folder, first, last = self._places[i].tolist()
        return Track(*self._names[i], *(array[first:last] for array in self._mapped(folder)))

    def _mapped(self, folder: int) -> list[np.ndarray]:
        if folder not in self._arrays:
            paths = [self._folders[folder] / f"{name}.npy" for name in ARRAYS]
            self._arrays[folder] = [np.load(path, mmap_mode="r") for path in paths]
        return self._arrays[folder]


def read_index(folder: Path) -> dict[str, Any]:
    """`clips` [name, source, identity, frames] and `made_by` of a folder of tracks.

    Raises InputError where it is damaged.
    """
    try:
        found = json.loads((folder / _INDEX).read_text())
        return {"clips": found["clips"], "made_by": found["made_by"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: damaged; delete this folder") from None


def write_tracks(
    folder: Path, tracks: Iterable[Track], frames: int, made_by: Mapping[str, Any]
) -> None:
    """Write tracks of `frames` frames in all; the folder appears, or is replaced, when all is well.

    Of several processes that make the same, the first to finish is kept.
    Raises InputError where it cannot be written.
    """
    # Processes of several containers may share a disk, and have the same number.
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        clips = _write_arrays(partial, tracks, frames)
        (partial / _INDEX).write_text(json.dumps({"made_by": made_by, "clips": clips}))
        _replace(folder, partial, made_by)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(folder: Path, partial: Path, made_by: Mapping[str, Any]) -> None:
    try:
        partial.rename(folder)
    except OSError:
        with contextlib.suppress(InputError):
            if read_index(folder)["made_by"] == made_by:
                return  # another process was first, and what it wrote may be in use
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def _write_arrays(folder: Path, tracks: Iterable[Track], frames: int) -> list[list[Any]]:
    clips: list[list[Any]] = []
    arrays: list[np.ndarray] = []
    first = 0
    for track in tracks:
        rows = [getattr(track, name) for name in ARRAYS]
        if not clips:
            arrays = [
                np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", row.dtype, (frames, row.shape[1])
                )
                for name, row in zip(ARRAYS, rows, strict=True)
            ]
        last = first + len(track.latents)
        for array, row in zip(arrays, rows, strict=True):
            array[first:last] = row
        clips.append([track.clip, track.source, track.identity, last - first])
        first = last
    if first != frames:
        raise ValueError(f"{folder}: {first} frames were written, not {frames}")
    return clips


def shards_digest(folder: Path) -> str:
    """Names the shards of a folder by their sizes, and the beginning and end of each."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.array_record*")):
        size = path.stat().st_size
        found.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            found.update(file.read(_ENDS))
            file.seek(max(size - _ENDS, 0))
            found.update(file.read(_ENDS))
    return found.hexdigest()[:16]
