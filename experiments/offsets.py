"""How often preparation finds by how much a sound is late: clips that were shifted on purpose.

    python -m experiments.offsets --footage=data/footage --clips=80

Clips of one person are joined until they are long enough, and their sound is moved by a random
number of frames. What preparation estimates is compared with it, also for the sound of other clips
and for sound that is played backwards, of which nothing should be sure.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.command import Parser, run
from xactor_jax.data.shards import (
    FRAME_RATE,
    SAMPLES_PER_FRAME,
    Clip,
    Shards,
    audio_to_float,
    decode_frames,
    open_shards,
    splits_of,
)
from xactor_jax.errors import InputError
from xactor_jax.preparation.settings import Sync
from xactor_jax.preparation.sync import Offset, agreement, mouth_patch, offset
from xactor_jax.progress import progress


@dataclasses.dataclass(frozen=True)
class Joined:
    """Clips of one person, one after another."""

    mouth: UInt8[np.ndarray, "t 16 24"]
    audio: Float[np.ndarray, " samples"]  # 16 kHz mono, as long


def joined(clips: list[Clip]) -> Joined:
    """Mouths, as preparation sees them, and sound."""
    mouths, sounds = [], []
    for clip in clips:
        views = decode_frames(clip, range(len(clip)))
        grays = (cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in views)
        mouths += [mouth_patch(gray, head) for gray, head in zip(grays, clip.head_box, strict=True)]
        sound, length = audio_to_float(clip.audio), len(clip) * SAMPLES_PER_FRAME
        sounds.append(np.pad(sound[:length], (0, max(length - len(sound), 0))))
    return Joined(np.stack(mouths), np.concatenate(sounds))


def groups(shards: Shards, seconds: float, random: np.random.Generator) -> Iterator[list[int]]:
    """Clips of one person each, in random order, that together last so long."""
    of_person = defaultdict(list)
    for i in random.permutation(len(shards)):
        of_person[shards.header(int(i)).identity].append(int(i))
    for found in of_person.values():
        group, length = [], 0
        for i in found:
            group.append(i)
            length += shards.header(i).length
            if length >= seconds * FRAME_RATE:
                yield group
                group, length = [], 0


def moved(audio: Float[np.ndarray, " samples"], frames: int) -> Float[np.ndarray, " samples"]:
    """The sound so many frames late, silence before it; early where they are negative."""
    samples = frames * SAMPLES_PER_FRAME
    if samples >= 0:
        return np.pad(audio, (samples, 0))[: len(audio)]
    return np.pad(audio[-samples:], (0, -samples))


def estimated(one: Joined, audio: Float[np.ndarray, " samples"], settings: Sync) -> Offset:
    """What preparation makes of a mouth and a sound."""
    return offset(agreement(one.mouth, audio, settings.most))


def measure(found: list[Joined], most: int, random: np.random.Generator) -> dict[str, float]:
    """Shares of clips whose offset is right to one frame, and what is sure though it is wrong."""
    settings, shown = Sync(), defaultdict(list)
    with progress("offsets", len(found), "clips") as advance:
        for one, other in zip(found, found[1:] + found[:1], strict=True):
            late = int(random.integers(-most, most + 1))
            guess = estimated(one, moved(one.audio, late), settings)
            right, sure = abs(guess.frames - late) <= 1, guess.sure(settings)
            shown["right_to_one_frame"].append(right)
            shown["sure_and_right"].append(sure and right)
            shown["sure_and_wrong"].append(sure and not right)
            shown["not_sure"].append(not sure)
            strange = {"anothers_sound": other.audio, "backwards": one.audio[::-1]}
            for name, sound in strange.items():
                shown[f"sure_of_{name}"].append(estimated(one, sound, settings).sure(settings))
            advance(1)
    return {name: float(np.mean(values)) for name, values in shown.items()}


def flags(arguments: list[str]) -> Namespace:
    """Read and check the command's flags. Raises InputError."""
    parser = Parser("Measure how often an offset of sound and picture is found.")
    parser.add_argument("--footage", required=True, help="folder of prepared footage, in step")
    parser.add_argument("--clips", type=int, default=80, help="joined clips at most")
    parser.add_argument("--seconds", type=float, default=12, help="of a joined clip, at least")
    parser.add_argument("--most", type=int, default=10, help="frames that sounds are moved by")
    chosen = parser.parse_args(arguments)
    for name, lowest, highest in (
        ("clips", 2, 10**6),
        ("seconds", 3, 600),
        ("most", 1, Sync().most),
    ):
        if not lowest <= getattr(chosen, name) <= highest:
            raise InputError(f"--{name}={getattr(chosen, name)}: use {lowest} to {highest}")
    return chosen


def main() -> None:
    """Print the measures as JSON."""
    chosen = flags(sys.argv[1:])
    random, found = np.random.default_rng(0), []
    for split in splits_of(chosen.footage):
        shards = open_shards(chosen.footage, split)
        for group in groups(shards, chosen.seconds, random):
            if len(found) < chosen.clips:
                found.append(joined([shards[i] for i in group]))
    if len(found) < 2:
        raise InputError(f"{chosen.footage}: too few clips to join two of {chosen.seconds} s")
    print(json.dumps({"clips": len(found)} | measure(found, chosen.most, random), indent=1))


if __name__ == "__main__":
    run(main)
