"""Synthetic actors: heads of ICT-FaceKit that speak with known phonemes, expressions and emotions.

    python -m xactor_jax.data.actors --facekit=FILE_OR_CHECKOUT --output=FOLDER
    python -m xactor_jax.data.actors portrait --facekit=FILE_OR_CHECKOUT --output=portrait.png
    python -m xactor_jax.data.actors speech --output=speech.wav

The first writes shards with splits "train" and "test"; identities and motions of one are never in
the other. Each take is one motion on several identities.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import shutil
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from xactor_jax.command import Parser, run
from xactor_jax.data.actor_speech import SAMPLE_RATE, Voice, choose_voice, speaker
from xactor_jax.data.facekit import EXPRESSIONS, load_facekit
from xactor_jax.data.shards import Clip, encode_frame, write_shards
from xactor_jax.errors import InputError
from xactor_jax.progress import progress

_TEXT = (
    "Hello. I have never stood in front of a camera before. But give me a voice and a moment, "
    "and maybe you will believe every word."
)
SPLITS = ("train", "test")
_IDENTITY, _VOICE, _CAST = 101, 102, 103  # keep the streams of random numbers apart


@dataclasses.dataclass(frozen=True)
class Take:
    """One motion to make and the identities to show it on; the first one lends the voice."""

    split: str
    number: int
    seconds: float
    identities: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the motion, unique in the data set."""
        return f"{self.split}_{self.number:05d}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides what the takes contain; see the flags of the command."""

    identities: int
    test_identities: int
    takes: int
    test_takes: int
    min_seconds: float
    max_seconds: float
    test_seconds: float
    long_every: int
    long_seconds: float
    identities_per_take: int
    size: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.test_identities < self.identities:
            raise InputError("--test_identities must be at least 1 and below --identities")
        smallest = min(self.test_identities, self.identities - self.test_identities)
        if not 1 <= self.identities_per_take <= smallest:
            raise InputError(f"--identities_per_take must be 1 to {smallest}, the smaller split")
        if not 0.2 <= self.min_seconds <= self.max_seconds:
            raise InputError("--min_seconds must be at least 0.2 and at most --max_seconds")
        for name in ("test_seconds", "long_seconds"):
            if getattr(self, name) < 0.2:
                raise InputError(f"--{name} must be at least 0.2")
        if not 32 <= self.size <= 2048:
            raise InputError(f"--size={self.size} must be 32 to 2048 pixels")
        if self.takes < 0 or self.test_takes < 0 or self.seed < 0 or self.long_every < 0:
            raise InputError("--takes, --test_takes, --long_every and --seed must not be negative")


def plan_takes(settings: Settings) -> list[Take]:
    """Every take of a data set, in order; test identities are the last ones."""
    first_test = settings.identities - settings.test_identities
    casts = {"train": range(first_test), "test": range(first_test, settings.identities)}
    counts = {"train": settings.takes, "test": settings.test_takes}
    takes = []
    for place, split in enumerate(SPLITS):
        random = np.random.default_rng((settings.seed, _CAST, place))
        cast = np.array(casts[split])
        for number in range(counts[split]):
            main = cast[number % len(cast)]
            others = random.permutation(cast[cast != main])[: settings.identities_per_take - 1]
            seconds = float(random.uniform(settings.min_seconds, settings.max_seconds))
            if split == "test":
                seconds = settings.test_seconds
            elif settings.long_every and (number + 1) % settings.long_every == 0:
                seconds = settings.long_seconds
            takes.append(Take(split, number, seconds, (int(main), *map(int, others))))
    return takes


def identity_name(identity: int) -> str:
    """The name of an actor in the records."""
    return f"actor_{identity:04d}"


def voice_of_identity(seed: int, identity: int) -> Voice:
    """The voice of an actor."""
    return choose_voice(np.random.default_rng((seed, _VOICE, identity)))


@functools.lru_cache(maxsize=1)
def head_of_kit(facekit: str):
    """The `Head` that all actors are shaped from. Raises InputError without the kit."""
    from xactor_jax.data.actor_head import build_head

    return build_head(load_facekit(facekit))


@functools.lru_cache(maxsize=8)
def look_of_identity(facekit: str, seed: int, identity: int):
    """The `Look` of an actor; `facekit` as the command takes it. Raises InputError without it."""
    from xactor_jax.data.actor_look import make_look

    return make_look(head_of_kit(facekit), (seed, _IDENTITY, identity))


def make_take(take: Take, settings: Settings, facekit: str) -> Iterator[Clip]:
    """The clips of one take: the same motion on each of its identities."""
    from xactor_jax.data.actor_motion import make_motion
    from xactor_jax.data.actor_render import render

    seed = (settings.seed, SPLITS.index(take.split), take.number)
    voice = voice_of_identity(settings.seed, take.identities[0])
    motion = make_motion(take.name, seed, take.seconds, voice)
    for identity in take.identities:
        look = look_of_identity(facekit, settings.seed, identity)
        frames, head_box = render(motion, look, head_of_kit(facekit), settings.size)
        yield Clip(
            clip=f"{take.name}_{identity_name(identity)}",
            source="actor",
            identity=identity_name(identity),
            motion=take.name,
            size=settings.size,
            frames=[encode_frame(frame) for frame in frames],
            head_box=head_box,
            audio=motion.audio,
            expression=motion.expression.astype(np.float16),
            pose=motion.pose,
            gaze=motion.gaze,
            blink=motion.blink,
            emotion=motion.emotion,
            intensity=motion.intensity,
            phonemes=[(round(p.start, 4), round(p.end, 4), p.ipa) for p in motion.phonemes],
        )


_ARRAYS = ("head_box", "audio", "expression", "pose", "gaze", "blink", "emotion", "intensity")
_TEXTS = ("clip", "source", "identity", "motion", "size")


def _stage(take: Take, settings: Settings, facekit: str, folder: Path) -> int:
    """Make a take and keep it as one file in `folder`; the number of frames rendered."""
    parts: dict[str, np.ndarray] = {}
    count = 0
    for i, clip in enumerate(make_take(take, settings, facekit)):
        facts = {name: getattr(clip, name) for name in _TEXTS} | {"phonemes": clip.phonemes}
        parts |= {f"{i}.{name}": getattr(clip, name) for name in _ARRAYS}
        parts[f"{i}.facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        parts[f"{i}.frames"] = np.frombuffer(b"".join(clip.frames), np.uint8)
        parts[f"{i}.lengths"] = np.array([len(frame) for frame in clip.frames])
        count += len(clip)
    partial = folder / f".{take.name}.npz"
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **parts)
        os.replace(partial, folder / f"{take.name}.npz")
    finally:
        partial.unlink(missing_ok=True)
    return count


def _staged(folder: Path, takes: list[Take]) -> Iterator[Clip]:
    for take in takes:
        with np.load(folder / f"{take.name}.npz", allow_pickle=False) as parts:
            for i in range(len(take.identities)):
                facts = json.loads(parts[f"{i}.facts"].tobytes())
                jpegs, ends = parts[f"{i}.frames"].tobytes(), np.cumsum(parts[f"{i}.lengths"])
                starts = np.concatenate([[0], ends[:-1]])
                frames = [jpegs[a:b] for a, b in zip(starts, ends, strict=True)]
                arrays = {name: parts[f"{i}.{name}"] for name in _ARRAYS}
                yield Clip(**facts, **arrays, frames=frames)


def write_actors(
    facekit: str | Path, output: str | Path, settings: Settings, jobs: int = 1
) -> tuple[int, float]:
    """Render all takes and write them as shards in `output`; frames rendered now and seconds.

    Takes are kept one by one in `output/.takes`, so that an interrupted run continues.

    Raises:
      InputError: the facekit is unusable, something to install is missing, or `output` holds
        actors made with other settings.
    """
    output, kept = Path(output), json.dumps(dataclasses.asdict(settings), sort_keys=True)
    record = output / "actors.json"
    if record.is_file() and json.loads(record.read_text())["settings"] != json.loads(kept):
        raise InputError(f"{output}: holds actors of other settings; choose another --output")
    if record.is_file() and (output / "dataset_info.json").is_file():
        return 0, 0.0
    head_of_kit(str(facekit))  # one that cannot be used is reported before anything is written
    staging = output / ".takes"
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror})") from None
    record.write_text(
        json.dumps({"settings": json.loads(kept), "expressions": EXPRESSIONS}, indent=1)
    )
    takes = plan_takes(settings)
    began = time.monotonic()
    missing = [take for take in takes if not (staging / f"{take.name}.npz").is_file()]
    frames = _stage_all(missing, settings, str(facekit), staging, jobs)
    seconds = time.monotonic() - began
    splits = {s: _staged(staging, [t for t in takes if t.split == s]) for s in SPLITS}
    write_shards(output, splits)
    shutil.rmtree(staging)
    return frames, seconds


def _stage_all(missing, settings, facekit, staging, jobs) -> int:
    done = 0
    # Spawned, not forked: the parent has threads of the libraries it imported.
    start = multiprocessing.get_context("spawn")
    with progress("rendering takes", len(missing), "takes") as advance:
        work = functools.partial(_stage, settings=settings, facekit=facekit, folder=staging)
        if jobs == 1:
            results: Iterator[int] = map(work, missing)
            pool = None
        else:
            pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=start)
            futures = [pool.submit(work, take) for take in missing]
            results = (future.result() for future in concurrent.futures.as_completed(futures))
        try:
            for count in results:
                done += count
                advance(1)
        finally:
            if pool:
                pool.shutdown(cancel_futures=True)
    return done


def save_portrait(facekit: str, identity: int, seed: int, size: int, output: Path) -> None:
    """Write a PNG of an actor at rest who looks into the camera."""
    from xactor_jax.data.actor_motion import Motion
    from xactor_jax.data.actor_render import render

    def none(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    look = look_of_identity(facekit, seed, identity)
    right, up, forward = look.camera[2]  # towards the lens, as the head sees it
    gaze = np.array([[np.arctan2(right, forward), np.arcsin(up)]], np.float32)
    rest = Motion(
        "rest", np.zeros(640, np.int16), (), none(1, len(EXPRESSIONS)), none(1, 5), gaze,
        none(1), np.zeros(1, np.int8), none(1), np.zeros(1, bool),
    )  # fmt: skip
    frames, _ = render(rest, look, head_of_kit(facekit), size, samples=3)
    data = cv2.imencode(".png", next(frames)[..., ::-1])[1].tobytes()
    _write(output, data)


def save_speech(text: str, voice: Voice, seed: int, output: Path) -> None:
    """Write a WAV file of a text read by a voice."""
    with speaker(seed + 1) as espeak:
        audio = espeak.say(text, voice).audio
    audio = audio * (0.7 / max(float(np.abs(audio).max()), 1e-6))
    partial = output.with_name(f".{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(partial), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes((audio * 32767).astype("<i2").tobytes())
        os.replace(partial, output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)


def _portrait_command(arguments: list[str]) -> None:
    parser = Parser("Render the portrait of one actor, at rest, as PNG.")
    parser.add_argument("--facekit", required=True, help="packed npz or ICT-FaceKit checkout")
    parser.add_argument("--output", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--identity", default="actor_0170", help="name or number of the actor")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set")
    flags = parser.parse_args(arguments)
    digits = flags.identity.removeprefix("actor_")
    if not digits.isdecimal():
        raise InputError(f"--identity={flags.identity} is not like actor_0170")
    if not 32 <= flags.size <= 2048 or flags.seed < 0:
        raise InputError("--size must be 32 to 2048 pixels and --seed not negative")
    save_portrait(flags.facekit, int(digits), flags.seed, flags.size, flags.output)
    print(flags.output)


def _speech_command(arguments: list[str]) -> None:
    parser = Parser("Speak a text with espeak-ng into a WAV file, 16 kHz mono.")
    parser.add_argument("--output", type=Path, required=True, help="WAV file to write")
    parser.add_argument("--text", default=_TEXT, help="what to say")
    parser.add_argument("--voice", default="en-us+f2", help="espeak-ng voice and variant")
    parser.add_argument("--rate", type=float, default=155, help="words a minute")
    parser.add_argument("--seed", type=int, default=0, help="seed of breath and flutter")
    flags = parser.parse_args(arguments)
    save_speech(flags.text, Voice(flags.voice, rate=flags.rate), flags.seed, flags.output)
    print(flags.output)


def _dataset_command(arguments: list[str]) -> None:
    parser = Parser("Render synthetic actors into shards (also: portrait, speech).")
    parser.add_argument("--facekit", required=True, help="packed npz or ICT-FaceKit checkout")
    parser.add_argument("--output", required=True, help="folder of the shards")
    parser.add_argument("--identities", type=int, default=180, help="actors in all")
    parser.add_argument("--test_identities", type=int, default=30, help="the last ones: test only")
    parser.add_argument("--takes", type=int, default=170, help="motions for training")
    parser.add_argument("--test_takes", type=int, default=30, help="motions for testing")
    parser.add_argument("--identities_per_take", type=int, default=2, help="actors a motion")
    parser.add_argument("--min_seconds", type=float, default=10, help="shortest training take")
    parser.add_argument("--max_seconds", type=float, default=20, help="longest usual training take")
    parser.add_argument("--test_seconds", type=float, default=10, help="length of a test take")
    parser.add_argument("--long_every", type=int, default=40, help="every n-th take is long; 0: no")
    parser.add_argument("--long_seconds", type=float, default=60, help="length of a long take")
    parser.add_argument("--size", type=int, default=192, help="pixels")
    parser.add_argument("--seed", type=int, default=0, help="decides everything else")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    flags = vars(parser.parse_args(arguments))
    facekit, output, jobs = flags.pop("facekit"), flags.pop("output"), flags.pop("jobs")
    if jobs < 1:
        raise InputError("--jobs must be at least 1")
    frames, seconds = write_actors(facekit, output, Settings(**flags), jobs)
    rate = frames / max(seconds, 1e-9)
    print(f"{output}: {frames} frames rendered in {seconds:.0f} s ({rate:.0f} frames/s)")


def main() -> None:
    """The command line."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["portrait"]:
        _portrait_command(arguments[1:])
    elif arguments[:1] == ["speech"]:
        _speech_command(arguments[1:])
    else:
        _dataset_command(arguments)


if __name__ == "__main__":
    run(main)
