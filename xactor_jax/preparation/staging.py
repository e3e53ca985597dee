"""What is done already: clips and outcomes of every file, kept until the shards are written.

Every file has a folder here. Its outcome is written last and whole, so that it is either done or
not. Several machines may write at once, also the same file, as runners do that lose sight of one.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import av
import cv2
import numpy as np

from xactor_jax.data.shards import EMOTIONS, SAMPLES_PER_FRAME, Clip
from xactor_jax.errors import InputError, NoAccess, OutOfMemory
from xactor_jax.preparation.clips import Prepared, Refused
from xactor_jax.preparation.footage import Footage
from xactor_jax.preparation.settings import Settings
from xactor_jax.recipes.listed import Listed

# What libraries raise at files that no check foresaw; one such file must not stop the others.
_FILE_ERRORS = (
    *(av.FFmpegError, cv2.error, ValueError, TypeError, ArithmeticError, LookupError),
    *(AssertionError, AttributeError, MemoryError, RuntimeError),
)
# What a file of clips raises that a power cut, or a disk, has damaged.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)
_PARTIAL = ".partial"
_ABANDONED_SECONDS = 3600  # since a file that takes seconds to write was last written to


class Staging:
    """The folder of prepared clips; `settings` decide which of its contents still hold."""

    def __init__(self, folder: Path, settings: Settings):
        self.folder = folder
        self.settings = settings

    def outcome_path(self, footage: Footage) -> Path:
        """Where a file's outcome is when it is done."""
        return self.folder / footage.key / f"{footage.signature(self.settings)}.json"

    def outcome(self, footage: Footage) -> dict[str, Any] | None:
        """What became of a file: `checksum`, `clips`, `refused`; None when it is not done."""
        try:
            return json.loads(self.outcome_path(footage).read_text())
        except (OSError, ValueError):
            return None

    def holds(self, footage: Footage) -> bool:
        """Whether a file is done and another run need not look at it.

        An outcome that another run may better, or whose clips are not all there, is forgotten.
        """
        outcome = self.outcome(footage)
        if outcome is None:
            return False
        again = any(row["again"] for row in outcome["refused"])
        if not again and all(self._whole(row) for row in outcome["clips"]):
            return True
        self.outcome_path(footage).unlink(missing_ok=True)
        return False

    def _whole(self, row: dict[str, Any]) -> bool:
        try:
            return (self.folder / row["file"]).stat().st_size == row["file_bytes"]
        except FileNotFoundError:
            return False

    def thumbnail(self, footage: Footage, kind: str, place: int) -> str:
        """JPEG in base64 of one of the `clips` or `refused` of an outcome; empty without one."""
        outcome = self.outcome(footage)
        return outcome[kind][place]["thumbnail"] if outcome else ""

    def keep(self, footage: Footage, results: Iterable[Prepared | Refused]) -> None:
        """Store results as they come, then the outcome; what was there of an older file goes.

        An InputError while they are made is an outcome too: of the rest of the file.
        """
        outcome = self.outcome_path(footage)
        clips: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        try:
            for result in results:
                if isinstance(result, Refused):
                    refused.append(_refused_row(result))
                    continue
                # Named by content: an outcome then lists what it was made with, also where two
                # machines work on one file and do not agree to the last bit.
                name = f"{outcome.stem}-{len(clips)}-{_content(result.clip)}.npz"
                file = outcome.with_name(name)
                _write(file, lambda out, of=result: _save(out, of))
                stored = {"file": f"{footage.key}/{name}", "file_bytes": file.stat().st_size}
                clips.append(_clip_row(result) | stored)
        except InputError as error:
            reason = str(error).removeprefix(f"{footage.path}: ")
            again = isinstance(error, NoAccess | OutOfMemory)
            refused.append(_refused_row(Refused(reason, again=again)))
        except _FILE_ERRORS as error:
            again = _lacks_memory(error)
            reason = f"cannot be prepared ({type(error).__name__}: {error})"
            reason += "; run again with more memory" if again else ""
            refused.append(_refused_row(Refused(reason, again=again)))
        # What is no film may be large, and no row asks for its checksum.
        checksum = _checksum(footage.path) if clips or refused else ""
        done = {"checksum": checksum, "clips": clips, "refused": refused}
        text = json.dumps(done).encode()
        _write(outcome, lambda out: out.write(text))
        now = outcome.stat().st_mtime  # of the disk, which may not go by this machine's clock
        for old in outcome.parent.iterdir():
            if old.suffix == _PARTIAL:
                # What a kill left half written, not what another machine writes at this moment.
                with contextlib.suppress(FileNotFoundError):
                    if now - old.stat().st_mtime > _ABANDONED_SECONDS:
                        old.unlink()
            elif not old.name.startswith(outcome.stem):
                old.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _stored(self, row: dict[str, Any]) -> Generator[Any]:
        """The file of a clip. Raises InputError where it is damaged, and has it made anew."""
        path = self.folder / row["file"]
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                yield stored
        except (FileNotFoundError, *_DAMAGED):
            path.unlink(missing_ok=True)
            raise InputError(f"{path}: damaged; run again, then it is made anew") from None

    def fingerprint(self, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The fingerprint of a clip's sound, and its mean picture. Raises as `load` does."""
        with self._stored(row) as stored:
            return stored["fingerprint"], stored["picture"]

    def load(self, footage: Footage, row: dict[str, Any]) -> Clip:
        """A clip that is kept, from its row of the outcome; a `shift` in it is made.

        Raises InputError where its file is damaged.
        """
        late = row.get("shift", 0)
        seen = slice(max(-late, 0), row["frames"] - max(late, 0))
        heard = slice(
            (seen.start + late) * SAMPLES_PER_FRAME, (seen.stop + late) * SAMPLES_PER_FRAME
        )
        with self._stored(row) as stored:
            jpegs, offsets = stored["jpegs"].tobytes(), stored["offsets"].tolist()
            frames = [jpegs[a:b] for a, b in itertools.pairwise(offsets)][seen]
            return Clip(
                clip=row["clip"],
                source="footage",
                identity=footage.identity,
                size=self.settings.size,
                frames=frames,
                head_box=stored["head_box"][seen],
                audio=stored["audio"][heard],
                **acted(footage.listed, len(frames)),
            )


def acted(listed: Listed | None, frames: int) -> dict[str, Any]:
    """Fields of a clip that tell a published emotion, where its strength is known."""
    if listed is None or listed.emotion not in EMOTIONS:
        return {}
    neutral = listed.emotion == "neutral"
    if not neutral and listed.intensity is None:
        return {}
    return {
        "emotion": np.full(frames, EMOTIONS.index(listed.emotion), np.int8),
        "intensity": np.full(frames, 0.0 if neutral else listed.intensity, np.float32),
    }


def changed_outcome() -> dict[str, Any]:
    """The outcome of a file that is another one now than when it was read."""
    refused = [_refused_row(Refused("changed while it was read; run again"))]
    return {"checksum": "", "clips": [], "refused": refused}


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or getattr(error, "code", 0) == cv2.Error.STS_NO_MEM


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    try:
        path.parent.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            write(file)
        os.replace(partial, path)
    except OSError as error:
        raise OSError(f"{path.parent}: cannot be written ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _content(clip: Clip) -> str:
    digest = hashlib.sha256(clip.audio.tobytes() + clip.head_box.tobytes())
    for frame in clip.frames:
        digest.update(frame)
    return digest.hexdigest()[:8]


def _save(file: BinaryIO, prepared: Prepared) -> None:
    clip = prepared.clip
    offsets = np.cumsum([0, *map(len, clip.frames)])
    jpegs = np.frombuffer(b"".join(clip.frames), np.uint8)
    np.savez(
        file,
        jpegs=jpegs,
        offsets=offsets,
        head_box=clip.head_box,
        audio=clip.audio,
        fingerprint=prepared.fingerprint,
        picture=prepared.picture,
    )


def _clip_row(prepared: Prepared) -> dict[str, Any]:
    clip = prepared.clip
    return {
        "clip": clip.clip,
        "start_seconds": prepared.start_seconds,
        "end_seconds": prepared.end_seconds,
        "offset_frames": prepared.offset_frames,
        "frames": len(clip),
        "curve": prepared.curve,
        "checks": prepared.checks,
        "bytes": sum(map(len, clip.frames)) + clip.audio.nbytes + clip.head_box.nbytes,
        "thumbnail": base64.b64encode(prepared.thumbnail).decode(),
    }


def _refused_row(refused: Refused) -> dict[str, Any]:
    row = dataclasses.asdict(refused)
    return row | {"thumbnail": base64.b64encode(refused.thumbnail).decode()}


def _checksum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
