"""Turn a folder of talking-head footage into training shards.

    python -m xactor_jax.prepare --input=FOLDER --output=FOLDER

Every video with sound under the input folder becomes one clip: 25 frames a second, 16 kHz mono, one
fixed square around the face. Clips that cannot be used are listed with the reason in
`rejected.csv`. Running again goes on where the last run stopped. `--recipe` reads a published data
set as it lies on disk (docs/datasets.md).
"""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import functools
import hashlib
import itertools
import mimetypes
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xactor_jax import recipes
from xactor_jax.command import Parser, run
from xactor_jax.data import shards
from xactor_jax.data.shards import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME, Clip
from xactor_jax.errors import InputError
from xactor_jax.media import faces
from xactor_jax.media.audio import frames_of, open_media, read_mono_16k
from xactor_jax.media.tracking import find_head
from xactor_jax.media.video import read_video
from xactor_jax.progress import progress
from xactor_jax.recipes import NAMES, find_clips
from xactor_jax.recipes.listed import Listed

SHORTEST_SECONDS = 1.0
_FORMAT = "1"


@dataclasses.dataclass(frozen=True)
class Footage:
    """A file to prepare, named by its path inside the input folder; or a clip of a recipe."""

    folder: Path
    name: str
    listed: Listed | None = None

    @property
    def path(self) -> Path:
        return self.folder / (self.listed.path if self.listed else self.name)

    @property
    def between(self) -> tuple[float, float | None]:
        """Where in the file the clip lies, in seconds."""
        return (self.listed.start_seconds, self.listed.end_seconds) if self.listed else (0.0, None)

    @property
    def identity(self) -> str:
        """The folder the file lies in, or whom the recipe names."""
        if self.listed:
            return self.listed.person
        parent = Path(self.name).parent.as_posix()
        return "footage" if parent == "." else parent

    def signature(self, size: int) -> str:
        """Changes with the file, the size of the view and the way clips are made."""
        stat = self.path.stat()
        return _hash(f"{stat.st_size} {stat.st_mtime_ns} {size} {_FORMAT}")[:8]

    def staged(self, output: Path, size: int) -> Path:
        """Where the prepared clip is kept until the shards are written."""
        return output / "clips" / f"{_hash(self.name)[:16]}-{self.signature(size)}.npz"


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def is_test(name: str, fraction: float) -> bool:
    """Whether a clip is in the test split: by a hash of its name, so that it stays there."""
    return int(_hash(name)[:8], 16) / 2**32 < fraction


def find_footage(folder: Path, recipe: str = "") -> list[Footage]:
    """All files under a folder that may be videos with sound, in order of their names.

    Args:
      recipe: of the data set that the folder holds; its clips then, in their order.

    Raises:
      InputError: the folder is missing or holds no video with sound.
    """
    if recipe:
        return [Footage(folder, clip.name, clip) for clip in find_clips(recipe, folder)]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [
        Footage(folder, path.relative_to(folder).as_posix())
        for path in paths
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and _may_be_video(path)
    ]
    if not found:
        raise InputError(f"{folder}: no video in this folder; give the folder with your clips")
    return found


def _may_be_video(path: Path) -> bool:
    kind = mimetypes.guess_type(path.name)[0] or ""
    if kind.startswith("video/"):
        return True
    if kind.startswith(("audio/", "image/", "text/")):
        return False
    try:
        with open_media(path) as container:
            return bool(container.streams.video and container.streams.audio)
    except InputError:
        return False


def prepare_clip(footage: Footage, size: int) -> Clip:
    """Read one file twice (to find the face, then to cut the view) and make it a clip.

    Raises:
      InputError: the file cannot be used; the message says why.
    """
    if os.fsencode(footage.name) != footage.name.encode("utf-8", "replace"):
        raise InputError(f"{footage.path}: its name is not UTF-8; rename it")
    start, end = footage.between
    audio = read_mono_16k(footage.path)[round(start * SAMPLE_RATE) :]
    audio = audio if end is None else audio[: round((end - start) * SAMPLE_RATE)]
    boxes, (height, width) = find_head(footage.path, start=start, end=end)
    length = min(len(boxes), frames_of(len(audio)))
    if length < SHORTEST_SECONDS * FRAME_RATE:
        raise InputError(f"only {length / FRAME_RATE:.2f} s with picture and sound; needs 1 s")
    track = faces.head_track(boxes[:length])
    window = faces.view_window(track, height, width)
    frames = []
    pictures = read_video(footage.path, start=start, end=end)
    for picture, _ in zip(pictures, range(length), strict=False):
        frames.append(shards.encode_frame(faces.cut_view(picture, window, size)))
    if len(frames) < length:
        raise InputError("the picture breaks off when read again")
    samples = np.zeros(length * SAMPLES_PER_FRAME, np.float32)
    samples[: len(audio)] = audio[: len(samples)]
    return Clip(
        clip=footage.name,
        source="footage",
        identity=footage.identity,
        size=size,
        frames=frames,
        head_box=faces.to_view(track, window),
        audio=np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16),
        **acted(footage.listed, length),
    )


def acted(listed: Listed | None, frames: int) -> dict[str, Any]:
    """Fields of a clip that tell a published emotion, where its strength is known."""
    if listed is None or listed.emotion not in shards.EMOTIONS:
        return {}
    neutral = listed.emotion == "neutral"
    if not neutral and listed.intensity is None:
        return {}
    return {
        "emotion": np.full(frames, shards.EMOTIONS.index(listed.emotion), np.int8),
        "intensity": np.full(frames, 0.0 if neutral else listed.intensity, np.float32),
    }


def stage(footage: Footage, output: Path, size: int) -> str:
    """Prepare one file and keep the result; returns why it cannot be used, or nothing.

    Safe to interrupt: the result appears whole or not at all.
    """
    target = footage.staged(output, size)
    try:
        clip = prepare_clip(footage, size)
    except InputError as error:
        return str(error).removeprefix(f"{footage.path}: ")
    for old in target.parent.glob(f"{target.name.split('-')[0]}-*.npz"):
        old.unlink()
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            _save(file, clip)
        os.replace(partial, target)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)
    return ""


def _save(file, clip: Clip) -> None:
    offsets = np.cumsum([0, *map(len, clip.frames)])
    jpegs = np.frombuffer(b"".join(clip.frames), np.uint8)
    np.savez(file, jpegs=jpegs, offsets=offsets, head_box=clip.head_box, audio=clip.audio)


def _load(footage: Footage, output: Path, size: int) -> Clip:
    with np.load(footage.staged(output, size), allow_pickle=False) as stored:
        jpegs, offsets = stored["jpegs"].tobytes(), stored["offsets"].tolist()
        return Clip(
            clip=footage.name,
            source="footage",
            identity=footage.identity,
            size=size,
            frames=[jpegs[a:b] for a, b in itertools.pairwise(offsets)],
            head_box=stored["head_box"],
            audio=stored["audio"],
            **acted(footage.listed, len(offsets) - 1),
        )


class _Rejections:
    """`rejected.csv`: which files cannot be used and why; kept up to date as work goes on."""

    def __init__(self, path: Path, footage: Iterable[Footage], size: int):
        self.path = path
        self.reasons: dict[str, tuple[str, str]] = {}
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = {row[0]: (row[1], row[2]) for row in csv.reader(file) if len(row) == 3}
            for clip in footage:
                if rows.get(clip.name, ("", ""))[1] == clip.signature(size):
                    self.reasons[clip.name] = rows[clip.name]
        self.save()

    def add(self, name: str, reason: str, signature: str) -> None:
        self.reasons[name] = reason, signature
        self.save()

    def save(self) -> None:
        partial = self.path.with_suffix(".partial")
        # Names of files may be bytes that are no text.
        with partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "reason", "signature"])
            writer.writerows([name, *rest] for name, rest in sorted(self.reasons.items()))
        os.replace(partial, self.path)


def _watched(results: Iterable, total: int) -> Iterator:
    """The same results, with a progress bar in a terminal."""
    with progress("preparing", total, "clips") as advance:
        for result in results:
            yield result
            advance(1)


def _staged(
    todo: list[Footage], output: Path, size: int, jobs: int
) -> Iterator[tuple[Footage, str]]:
    """Stage every file, with `jobs` processes; yields each with its reason as it is done."""
    work = functools.partial(stage, output=output, size=size)
    if jobs == 1:
        for footage in todo:
            yield footage, work(footage)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        jobs, context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        futures = {pool.submit(work, footage): footage for footage in todo}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def prepare(
    input: Path,
    output: Path,
    size: int = 256,
    test_fraction: float = 0.06,
    jobs: int = 1,
    recipe: str = "",
) -> tuple[int, int]:
    """Prepare all footage under `input` as shards in `output`; returns clips kept and rejected.

    Raises:
      InputError: there is no footage, none of it can be used, or `output` cannot be written.
    """
    footage = find_footage(input, recipe)
    try:
        (output / "clips").mkdir(parents=True, exist_ok=True)
        rejections = _Rejections(output / "rejected.csv", footage, size)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror})") from None
    done = {clip for clip in footage if clip.staged(output, size).is_file()}
    todo = [clip for clip in footage if clip not in done and clip.name not in rejections.reasons]
    for clip, reason in _watched(_staged(todo, output, size, jobs), len(todo)):
        if reason:
            rejections.add(clip.name, reason, clip.signature(size))
    kept = [clip for clip in footage if clip.staged(output, size).is_file()]
    if not kept:
        raise InputError(f"{input}: no clip can be used; {rejections.path} says why")
    _write(kept, output, size, test_fraction)
    return len(kept), len(rejections.reasons)


def _write(kept: list[Footage], output: Path, size: int, test_fraction: float) -> None:
    def split(test: bool) -> Iterator[Clip]:
        # Recipes name people, who are then in one split only.
        names = (
            clip
            for clip in kept
            if is_test(clip.identity if clip.listed else clip.name, test_fraction) == test
        )
        return (_load(clip, output, size) for clip in names)

    shards.write_shards(output, {"train": split(False), "test": split(True)})
    for name in shards.SPLITS:
        opened = shards.open_shards(output, name)
        if len(opened):
            shards.decode_frames(opened[len(opened) - 1], [0])


def main() -> None:
    parser = Parser("Turn a folder of talking-head footage into training shards.")
    parser.add_argument("--input", type=Path, required=True, help="folder with videos, any depth")
    parser.add_argument("--output", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--size", type=int, default=256, help="side of the view in pixels")
    parser.add_argument(
        "--test_fraction", type=float, default=0.06, help="share of the clips held out for testing"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes that work side by side")
    parser.add_argument("--recipe", default="", help=f"of a data set: {', '.join(NAMES)}")
    parser.add_argument(
        "--features", default="", help="weights of a renderer: latents and mel features are added"
    )
    flags = parser.parse_args()
    if not 32 <= flags.size <= 2048 or flags.size % 2:
        raise InputError(f"--size={flags.size}: give an even number from 32 to 2048")
    if not 0 <= flags.test_fraction < 1:
        raise InputError(f"--test_fraction={flags.test_fraction}: give a share from 0 to below 1")
    if flags.jobs < 1:
        raise InputError(f"--jobs={flags.jobs}: give 1 or more")
    renderer = vars(flags).pop("features")
    kept, rejected = prepare(**vars(flags))
    if renderer:
        from xactor_jax.data.features import add_features  # opens networks, which takes a while

        add_features(flags.output, renderer)
    print(f"{flags.output}: {kept} clips prepared, {rejected} rejected (rejected.csv says why)")
    if flags.recipe:
        print(f"{flags.recipe}: {recipes.recipe(flags.recipe).licence}")


if __name__ == "__main__":
    run(main)
