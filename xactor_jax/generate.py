"""A portrait acts from a voice, or performs the motion of another video.

python -m xactor_jax.generate --image=portrait.png --audio=speech.wav --output=video.mp4
python -m xactor_jax.generate --image=portrait.png --audio=speech.wav --direction=script.json \
    --output=video.mp4
python -m xactor_jax.generate --image=portrait.png --driving=film.mp4 --output=video.mp4
"""

from __future__ import annotations

import dataclasses
import itertools
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.acting import Acting
from xactor_jax.command import Parser, run, start_up
from xactor_jax.data.audio_features import audio_features
from xactor_jax.data.shards import FRAME_RATE, SAMPLE_RATE
from xactor_jax.data.transforms import PLAIN, driving_picture, picture_of, picture_window
from xactor_jax.errors import InputError
from xactor_jax.media.audio import Sound, frames_of, has_sound, read_mono_16k
from xactor_jax.media.driving import Driver, find_driver
from xactor_jax.media.faces import cut_view, single_face, to_view, view_window
from xactor_jax.media.image import read_image
from xactor_jax.media.video import VideoWriter, check_output, frames_expected
from xactor_jax.models.renderer import NEUTRAL_BOX, RendererConfig, Sampling
from xactor_jax.motion_sampler import MotionSampler, MotionSampling
from xactor_jax.progress import progress
from xactor_jax.release import MOTION_FILE, AnyRenderer, open_checkpoint, open_renderer
from xactor_jax.timeline import Timeline, read_timeline
from xactor_jax.xnemo import XNemoConfig

_ACTING = ("audio_guidance", "emotion_guidance", "history_guidance")


@dataclasses.dataclass(frozen=True)
class Portrait:
    """What the models see of a picture: the part to animate, and the crop that shows its motion."""

    picture: UInt8[np.ndarray, "s s 3"]
    driving: UInt8[np.ndarray, "c c 3"]


@dataclasses.dataclass(frozen=True)
class Performance:
    """A video in the making: frames that are rendered as they are asked for, and what is heard."""

    frames: Iterator[UInt8[np.ndarray, "s s 3"]]
    count: int
    size: int
    sound: Sound | None
    seconds: float


class Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, stage: str, values: Iterable) -> Iterator:
        """The values; the time to make each counts for `stage`, less what inner stages took."""
        iterator = iter(values)
        while True:
            start, inside = time.perf_counter(), sum(self.seconds.values())
            try:
                value = next(iterator)
            except StopIteration:
                return
            finally:
                spent = time.perf_counter() - start
                spent -= sum(self.seconds.values()) - inside
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
            yield value


def view_size(config: RendererConfig | XNemoConfig) -> int:
    """Side in pixels of the views that pictures and driving crops are cut from."""
    return max(256, 2 * config.image_size)


def portrait_of(image: UInt8[np.ndarray, "h w 3"], name: str, renderer: AnyRenderer) -> Portrait:
    """Find the one face of a picture and cut it as training clips are cut.

    Raises InputError when there is no face or more than one.
    """
    config = renderer.config
    face = single_face(image, name)
    boxes = np.array([[face.cy, face.cx, face.side]])
    window = view_window(boxes, *image.shape[:2])
    view = cut_view(image, window, view_size(config))
    head = to_view(boxes, window)
    rng = np.random.default_rng(0)
    driving = driving_picture(
        view, head[0], float(head[0, 2]), config.encoder.image_size, PLAIN, rng
    )
    picture = picture_of(view, picture_window(head, config.view_scale), config.image_size)
    return Portrait(picture, driving)


def perform(
    portrait: Portrait,
    features: Float[np.ndarray, "t f"],
    renderer: AnyRenderer,
    sampler: MotionSampler,
    *,
    seed: int,
    sampling: Sampling,
    acting: MotionSampling,
    stopwatch: Stopwatch,
    direction: Timeline | None = None,
) -> Iterator[UInt8[np.ndarray, "s s 3"]]:
    """The frames of a performance, one by one, in constant memory."""
    motion_key, noise_key = jax.random.split(jax.random.key(seed))
    own = renderer.encode(portrait.driving[None])
    performer = Acting(sampler, own, motion_key, sampling=acting, direction=direction)
    chunks = stopwatch.timed("motion", performer.chunks(features))
    motion = itertools.islice((latent for chunk in chunks for latent in chunk[0]), len(features))
    box = itertools.repeat(np.array(NEUTRAL_BOX, np.float32))
    frames = renderer.animate(portrait.picture, portrait.driving, motion, box, noise_key, sampling)
    return stopwatch.timed("frames", frames)


def reenact(
    portrait: Portrait,
    driver: Driver,
    renderer: AnyRenderer,
    *,
    seed: int,
    sampling: Sampling,
    relative: bool,
    stopwatch: Stopwatch,
) -> Iterator[UInt8[np.ndarray, "s s 3"]]:
    """The frames of a driver's performance on the portrait, one by one, in constant memory.

    Args:
      relative: the motion is what has changed since the driver's first frame, added to the
        portrait's own.
    """
    config = renderer.config
    crops = driver.crops(view_size(config), config.encoder.image_size)
    motion = renderer.encode_each(crops)
    if relative:
        motion = changes_added(renderer.encode(portrait.driving[None])[0], motion)
    motion = stopwatch.timed("motion", motion)
    key = jax.random.key(seed)
    frames = renderer.animate(portrait.picture, portrait.driving, motion, driver.box, key, sampling)
    return stopwatch.timed("frames", frames)


def changes_added(
    own: Float[np.ndarray, " d"], motion: Iterable[Float[np.ndarray, " d"]]
) -> Iterator[Float[np.ndarray, " d"]]:
    """own + (m_t - m_0) of motion latents m: another's changes, begun at one's own latent."""
    first = None
    for latent in motion:
        first = latent if first is None else first
        yield own + (latent - first)


def add_sampling(parser: Parser) -> None:
    """The flags that say how frames and motion are drawn."""
    parser.add_argument("--seed", type=int, default=0, help="another seed acts differently")
    parser.add_argument(
        "--steps", type=int, help="denoising steps of each frame, if not the checkpoint's own"
    )
    parser.add_argument(
        "--motion_guidance",
        type=float,
        help="over 1: moves further from the portrait's expression; 1: none; this and those below "
        "are the checkpoint's own if not given",
    )
    parser.add_argument(
        "--audio_guidance", type=float, help="over 1: follows the voice more; 1: none"
    )
    parser.add_argument(
        "--history_guidance", type=float, help="over 1: goes on more as before; 1: none"
    )
    parser.add_argument(
        "--emotion_guidance", type=float, help="over 1: shows told emotions more; 1: none"
    )


def check_ranges(chosen: Namespace) -> None:
    """Raise InputError for a sampling flag that is out of range."""
    for name, lowest, highest in (
        ("seed", 0, 2**31 - 1),
        ("steps", 1, 100),
        ("motion_guidance", 0, 10),
        *((name, 0, 10) for name in _ACTING),
    ):
        value = getattr(chosen, name, None)
        if value is not None and not lowest <= value <= highest:
            raise InputError(f"--{name}={value}: use {lowest} to {highest}")


def sampling_of(chosen: Namespace, renderer: AnyRenderer) -> Sampling:
    """What the flags say, and the checkpoint's own sampling where they say nothing."""
    own = renderer.config.sampling
    return Sampling(
        steps=own.steps if chosen.steps is None else chosen.steps,
        motion_guidance=(
            own.motion_guidance if chosen.motion_guidance is None else chosen.motion_guidance
        ),
    )


def acting_of(chosen: Namespace, sampler: MotionSampler) -> MotionSampling:
    """Likewise of the motion. Raises InputError where chunk after chunk cannot be acted."""
    if sampler.config.full_sequence:
        weights = Path(chosen.checkpoint) / MOTION_FILE
        raise InputError(f"{weights}: acts whole recordings only; give one that acts in chunks")
    told = {name: getattr(chosen, name, None) for name in _ACTING}
    told = {name: scale for name, scale in told.items() if scale is not None}
    return dataclasses.replace(sampler.sampling, **told)


def check_direction(chosen: Namespace, sampler: MotionSampler) -> None:
    """Raise InputError where weights are told something that were not trained for it."""
    if chosen.direction is not None and not sampler.config.direction:
        weights = Path(chosen.checkpoint) / MOTION_FILE
        raise InputError(f"--direction: {weights} was not trained to be told anything")


def flags(arguments: list[str]) -> Namespace:
    """Read and check the command's flags. Raises InputError."""
    parser = Parser("Animate a portrait with a voice, or with the motion of a video.")
    parser.add_argument("--image", required=True, help="picture with one face")
    parser.add_argument(
        "--audio",
        help="speech to act from: any audio, or video with sound; with --driving it is only heard, "
        "as long as that video lasts",
    )
    parser.add_argument(
        "--driving",
        help="video of one person, without cuts, whose motion the portrait performs; it is heard "
        "with its own sound unless --audio gives another",
    )
    parser.add_argument(
        "--relative_motion",
        action="store_true",
        help="add the changes since the first frame of --driving to the portrait's own expression; "
        "that frame should show about the portrait's expression",
    )
    parser.add_argument(
        "--direction",
        help="JSON file that tells emotion, head pose, gaze, blinks and stillness over time",
    )
    parser.add_argument("--output", required=True, help="MP4 file to write")
    parser.add_argument("--checkpoint", default="checkpoints/tiny", help="folder of weights")
    add_sampling(parser)
    chosen = parser.parse_args(arguments)
    check_sources(chosen)
    check_ranges(chosen)
    check_output(chosen.output)
    return chosen


def check_sources(chosen: Namespace) -> None:
    """Raise InputError where nothing says how to move, or the output would replace a source."""
    if chosen.audio is None and chosen.driving is None:
        raise InputError("give --audio=SPEECH to act from, or --driving=VIDEO to perform")
    if chosen.relative_motion and chosen.driving is None:
        raise InputError("--relative_motion: of what? give --driving=VIDEO too")
    acted = [name for name in ("direction", *_ACTING) if getattr(chosen, name) is not None]
    if acted and chosen.driving is not None:
        raise InputError(f"--{acted[0]}: --driving performs a video's motion and acts nothing")
    if chosen.emotion_guidance is not None and chosen.direction is None:
        raise InputError("--emotion_guidance: of which emotions? give --direction=FILE too")
    output = Path(chosen.output)
    for source in (chosen.audio, chosen.driving, chosen.direction):
        if source and output.is_file() and Path(source).is_file() and output.samefile(source):
            raise InputError(f"{output}: this file is also read; name another output")


def acted(chosen: Namespace, stopwatch: Stopwatch) -> Performance:
    """The portrait acts from speech, and lasts as long. Raises InputError for a bad file."""
    image = read_image(chosen.image)
    sound, speech = Sound(chosen.audio), read_mono_16k(chosen.audio)
    count = max(frames_of(len(speech)), 1)
    direction = None if chosen.direction is None else read_timeline(chosen.direction, count)
    renderer, sampler = open_checkpoint(chosen.checkpoint)
    check_direction(chosen, sampler)
    frames = perform(
        portrait_of(image, chosen.image, renderer),
        audio_features(speech, count, sampler.hearing),
        renderer,
        sampler,
        seed=chosen.seed,
        sampling=sampling_of(chosen, renderer),
        acting=acting_of(chosen, sampler),
        stopwatch=stopwatch,
        direction=direction,
    )
    seconds = max(len(speech), 1) / SAMPLE_RATE
    return Performance(frames, count, renderer.config.image_size, sound, seconds)


def driving_sound(chosen: Namespace) -> Sound | None:
    """What is heard with a driving video: --audio, or else its own sound where it has any.

    Raises InputError for a bad file.
    """
    if chosen.audio is None and not has_sound(chosen.driving):
        return None
    sound = Sound(chosen.driving if chosen.audio is None else chosen.audio)
    for _ in sound:  # what is wrong with it is said before the face is looked for
        pass
    return sound


def reenacted(chosen: Namespace, stopwatch: Stopwatch) -> Performance:
    """The portrait performs a video, and lasts as long. Raises InputError for a bad file."""
    image = read_image(chosen.image)
    sound = driving_sound(chosen)
    renderer = open_renderer(chosen.checkpoint)
    portrait = portrait_of(image, chosen.image, renderer)
    begun, expected = time.perf_counter(), frames_expected(chosen.driving)
    with progress("finding the face", expected, "frames") as advance:
        driver = find_driver(chosen.driving, advance)
    stopwatch.seconds["face"] = time.perf_counter() - begun
    frames = reenact(
        portrait,
        driver,
        renderer,
        seed=chosen.seed,
        sampling=sampling_of(chosen, renderer),
        relative=chosen.relative_motion,
        stopwatch=stopwatch,
    )
    seconds = len(driver) / FRAME_RATE
    if sound is not None:
        sound = Sound(sound.path, seconds=seconds)
    return Performance(frames, len(driver), renderer.config.image_size, sound, seconds)


def main() -> None:
    """Generate what the flags say."""
    chosen = flags(sys.argv[1:])
    start_up()
    # Ended from outside, the half-written video is removed too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    stopwatch = Stopwatch()
    made = (acted if chosen.driving is None else reenacted)(chosen, stopwatch)
    heard = None if made.sound is None else (made.sound, made.sound.rate)
    with (
        VideoWriter(chosen.output, made.size, FRAME_RATE, heard) as video,
        progress("frames", made.count, "frames") as advance,
    ):
        for frame in made.frames:
            video.push(frame)
            advance(1)
    times = ", ".join(
        f"{stage} {spent / made.seconds:.2f}x" for stage, spent in stopwatch.seconds.items()
    )
    print(f"{chosen.output}: {made.seconds:.2f} s of video; time for each second of it: {times}")


if __name__ == "__main__":
    run(main)
