"""Of two people in one picture, of whom one is heard: how often preparation takes the right one.

    python -m experiments.two_speakers --footage=data/raw/s1

Films of one talking person each are joined in pairs to about six seconds and put into one picture,
with the sound of one of the two: side by side, so close that their views overlap, or one of them
smaller. They are prepared as any other film. Colours are changed a little to tell the two apart.
"""

from __future__ import annotations

import collections
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from xactor_jax.command import Parser, run
from xactor_jax.data.shards import SAMPLE_RATE, SAMPLES_PER_FRAME, Clip, decode_frames
from xactor_jax.errors import InputError
from xactor_jax.media.audio import read_mono_16k
from xactor_jax.media.video import VideoWriter, read_video
from xactor_jax.preparation.clips import Prepared, Refused, prepare_file
from xactor_jax.preparation.footage import find_films
from xactor_jax.preparation.settings import Settings, changed
from xactor_jax.progress import progress

LAYOUTS = ("side by side", "close", "one smaller")
TINTS = (1.05, 1.65)  # of the two faces: red to blue. GRID's faces are between.
_SIDE = 256
_CLOSE = slice(48, 208)  # columns that are left of each
_SMALLER = 0.65

Film = tuple[UInt8[np.ndarray, "t 256 256 3"], Float32[np.ndarray, " samples"]]


def redness(pictures: UInt8[np.ndarray, "t h w 3"]) -> float:
    """Red to blue in their middle, where the face is."""
    height, width = pictures.shape[1:3]
    middle = pictures[:, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
    red, _, blue = middle.mean((0, 1, 2))
    return float(red / blue)


def tinted(pictures: UInt8[np.ndarray, "t h w 3"], tint: float) -> UInt8[np.ndarray, "t h w 3"]:
    """Films whose faces have this redness."""
    change = np.sqrt(tint / redness(pictures[:1]))
    gain = np.array([change, 1, 1 / change], np.float32)
    return np.round(np.minimum(pictures * gain, 255)).astype(np.uint8)


def joined(paths: list[Path], tint: float) -> Film:
    """Films one after the other, 256 pixels high and wide, whose faces have this redness."""
    pictures, sounds = [], []
    for path in paths:
        frames = [cv2.resize(frame, (_SIDE, _SIDE)) for frame in read_video(path)]
        heard = np.zeros(len(frames) * SAMPLES_PER_FRAME, np.float32)
        sound = read_mono_16k(path)[: len(heard)]
        heard[: len(sound)] = sound
        pictures.append(tinted(np.stack(frames), tint))
        sounds.append(heard)
    return np.concatenate(pictures), np.concatenate(sounds)


def scene(one: np.ndarray, other: np.ndarray, layout: str) -> np.ndarray:
    """Both in one picture for as long as both last."""
    length = min(len(one), len(other))
    one, other = one[:length], other[:length]
    if layout == "close":
        one, other = one[:, :, _CLOSE], other[:, :, _CLOSE]
    if layout == "one smaller":
        small = round(_SMALLER * _SIDE)
        smaller = np.stack([cv2.resize(frame, (small, small)) for frame in other])
        # Its own background goes on above it.
        other = np.repeat(smaller[:, :1], _SIDE - small, axis=1)
        other = np.concatenate([other, smaller], axis=1)
    both = np.concatenate([one, other], axis=2)
    return both[:, :, : both.shape[2] // 2 * 2]


def is_second(clip: Clip) -> bool:
    """Whether the face of a clip is the second one's, by its tint."""
    return redness(decode_frames(clip, [len(clip) // 2])) > np.sqrt(np.prod(TINTS))


def judged(path: Path, spoken: bool, settings: Settings) -> str:
    """`right`, `wrong`, `both`, or why neither is taken; `spoken`: the second one is heard."""
    results = list(prepare_file(path, path.name, "", settings))
    taken = {is_second(one.clip) for one in results if isinstance(one, Prepared)}
    if len(taken) == 2:
        return "both"
    if taken:
        return "right" if spoken in taken else "wrong"
    reasons = {one.reason.partition(" (")[0] for one in results if isinstance(one, Refused)}
    reasons = {re.sub(r"\d+", "N", reason) for reason in reasons}
    return ", ".join(sorted(reasons)) or "nothing found"


def film(scene_of: np.ndarray, sound: np.ndarray, path: Path) -> None:
    """Write a scene with its sound, 16 kHz."""
    heard = sound[: len(scene_of) * SAMPLES_PER_FRAME]
    with VideoWriter(path, scene_of.shape[1:3], audio=([heard[:, None]], SAMPLE_RATE)) as video:
        for picture in scene_of:
            video.push(picture)


def measured(
    paths: list[Path], pairs: int, settings: Settings, advance: Callable[[int], None]
) -> dict[str, dict[str, int]]:
    """How many scenes of each layout ended how."""
    random = np.random.default_rng(0)
    counts = {layout: collections.Counter[str]() for layout in LAYOUTS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.mp4"
        for n in range(pairs):
            layout, spoken = LAYOUTS[n % len(LAYOUTS)], bool(random.integers(2))
            chosen = [paths[i] for i in random.choice(len(paths), 4, replace=False)]
            one, first = joined(chosen[:2], TINTS[0])
            other, second = joined(chosen[2:], TINTS[1])
            film(scene(one, other, layout), second if spoken else first, path)
            counts[layout][judged(path, spoken, settings)] += 1
            advance(1)
    return {layout: dict(found) for layout, found in counts.items()}


def main() -> None:
    """Measure, and print counts of each layout as JSON."""
    parser = Parser(__doc__.split("\n")[0])
    parser.add_argument("--footage", type=Path, required=True, help="films of one person each")
    parser.add_argument("--pairs", type=int, default=42, help="scenes in all")
    parser.add_argument("--margin", type=float, default=Settings().speaker.margin)
    flags = parser.parse_args(sys.argv[1:])
    cv2.setNumThreads(1)
    # Where sentences are joined is a cut, and the face may jump a little.
    changes = ["shots.enabled=False", "faces.jump=1", f"speaker.margin={flags.margin}"]
    settings = changed(Settings(), changes)
    paths = [one.path for one in find_films(flags.footage)]
    if len(paths) < 4:
        raise InputError(f"{flags.footage}: {len(paths)} films are here; use a folder of 4 or more")
    with progress("preparing", flags.pairs, "scenes") as advance:
        counts = measured(paths, flags.pairs, settings, advance)
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    run(main)
