"""Hours of video that one core prepares in an hour, and how often it could decode them meanwhile.

python -m benchmarks.prepare --input=data/raw

Files of the folder are decoded, then searched for faces, then prepared wholly, each in this one
process and by the processor's clock. Files that cannot be used count with what they took.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2

from xactor_jax.command import Parser, run
from xactor_jax.data.shards import FRAME_RATE
from xactor_jax.errors import InputError
from xactor_jax.media.video import read_video
from xactor_jax.preparation.clips import Prepared, prepare_file
from xactor_jax.preparation.footage import Footage, find_films
from xactor_jax.preparation.settings import Settings
from xactor_jax.preparation.tracks import find_tracks


def count_frames(footage: Footage) -> int:
    """Frames at 25 a second, decoded and thrown away."""
    return sum(1 for _ in read_video(footage.path))


def search(footage: Footage, settings: Settings) -> None:
    """Decode a file, find its shots and follow its faces."""
    for _ in find_tracks(read_video(footage.path), settings):
        pass


def prepare(footage: Footage, settings: Settings) -> None:
    """All of it, but for the writing of shards. Raises InputError where there is no clip."""
    results = prepare_file(footage.path, footage.name, footage.identity, settings)
    if not sum(isinstance(one, Prepared) for one in results):
        raise InputError(f"{footage.path}: no clip of it can be used")


def measure(work: Callable[[Footage], object], files: list[Footage]) -> tuple[float, int]:
    """Processor seconds that the files take, and how many could not be used."""
    start, unusable = time.process_time(), 0
    for footage in files:
        try:
            work(footage)
        except InputError:
            unusable += 1
    return time.process_time() - start, unusable


def benchmark(folder: Path, most: int, size: int) -> dict[str, float]:
    """Seconds of video, and each stage in hours of video a core-hour and against decoding."""
    cv2.setNumThreads(1)
    files, settings = find_films(folder)[:most], Settings(size=size)
    # Not measured is what is loaded and compiled once.
    measure(lambda footage: prepare(footage, settings), files[:1])
    frames = 0

    def decode(footage: Footage) -> None:
        nonlocal frames
        frames += count_frames(footage)

    decoding, _ = measure(decode, files)
    searching, _ = measure(lambda footage: search(footage, settings), files)
    preparing, unusable = measure(lambda footage: prepare(footage, settings), files)
    seconds = frames / FRAME_RATE
    return {
        "files": len(files),
        "unusable": unusable,
        "seconds": seconds,
        "decoding, hours a core-hour": seconds / decoding,
        "searching, hours a core-hour": seconds / searching,
        "preparing, hours a core-hour": seconds / preparing,
        "searching / decoding": searching / decoding,
        "preparing / decoding": preparing / decoding,
    }


def main() -> None:
    parser = Parser("Hours of video that one core prepares in an hour.")
    parser.add_argument("--input", type=Path, required=True, help="folder with videos")
    parser.add_argument("--files", type=int, default=20, help="at most so many of them")
    parser.add_argument("--size", type=int, default=256, help="side of the view in pixels")
    flags = parser.parse_args()
    # Decoders and linear algebra would spread over the cores, which a core-hour must not.
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise InputError("set OMP_NUM_THREADS=1, so that one core is measured")
    result = benchmark(flags.input, flags.files, flags.size)
    print(json.dumps({name: round(value, 2) for name, value in result.items()}, indent=2))


if __name__ == "__main__":
    run(main)
