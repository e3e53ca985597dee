"""A portrait and a voice become a video.

python -m xactor_jax.generate --image=portrait.png --audio=speech.wav --output=video.mp4
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.acting import MotionSampler
from xactor_jax.command import Parser, keep_compiled, run
from xactor_jax.data.audio_features import audio_features
from xactor_jax.data.shards import FRAME_RATE
from xactor_jax.data.transforms import PLAIN, driving_picture, picture_of, picture_window
from xactor_jax.errors import InputError
from xactor_jax.media.audio import frames_of, read_audio, to_mono_16k
from xactor_jax.media.faces import cut_view, single_face, to_view, view_window
from xactor_jax.media.image import read_image
from xactor_jax.media.video import VideoWriter, check_output
from xactor_jax.models.renderer import NEUTRAL_BOX, Sampling
from xactor_jax.progress import progress
from xactor_jax.release import PortraitRenderer, open_checkpoint


@dataclasses.dataclass(frozen=True)
class Portrait:
    """What the models see of a picture: the part to animate, and the crop that shows its motion."""

    picture: UInt8[np.ndarray, "s s 3"]
    driving: UInt8[np.ndarray, "c c 3"]


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


def portrait_of(
    image: UInt8[np.ndarray, "h w 3"], name: str, renderer: PortraitRenderer
) -> Portrait:
    """Find the one face of a picture and cut it as training clips are cut.

    Raises InputError when there is no face or more than one.
    """
    config = renderer.config
    face = single_face(image, name)
    boxes = np.array([[face.cy, face.cx, face.side]])
    window = view_window(boxes, *image.shape[:2])
    view = cut_view(image, window, max(256, 2 * config.image_size))
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
    renderer: PortraitRenderer,
    sampler: MotionSampler,
    *,
    seed: int,
    sampling: Sampling,
    audio_guidance: float,
    stopwatch: Stopwatch,
) -> Iterator[UInt8[np.ndarray, "s s 3"]]:
    """The frames of a performance, one by one, in constant memory."""
    motion_key, noise_key = jax.random.split(jax.random.key(seed))
    own = renderer.encode(portrait.driving[None])
    acting = sampler.start(own, motion_key, audio_guidance=audio_guidance)
    chunks = stopwatch.timed("motion", acting.chunks(features))
    motion = itertools.islice((latent for chunk in chunks for latent in chunk[0]), len(features))
    box = itertools.repeat(np.array(NEUTRAL_BOX, np.float32))
    noise = renderer.noise(noise_key)
    frames = renderer.animate(portrait.picture, portrait.driving, motion, box, noise, sampling)
    return stopwatch.timed("frames", frames)


def add_sampling(parser: Parser) -> None:
    """The flags that say how frames and motion are drawn."""
    parser.add_argument("--seed", type=int, default=0, help="another seed acts differently")
    parser.add_argument("--steps", type=int, help="denoising steps of each frame")
    parser.add_argument("--motion_guidance", type=float, help="over 1: moves more; 1: none")
    parser.add_argument("--audio_guidance", type=float, default=2.0, help="1: none")


def check_ranges(chosen: Namespace) -> None:
    """Raise InputError for a sampling flag that is out of range."""
    for name, lowest, highest in (
        ("seed", 0, 2**31 - 1),
        ("steps", 1, 100),
        ("motion_guidance", 0, 10),
        ("audio_guidance", 0, 10),
    ):
        value = getattr(chosen, name)
        if value is not None and not lowest <= value <= highest:
            raise InputError(f"--{name}={value}: use {lowest} to {highest}")


def sampling_of(chosen: Namespace, renderer: PortraitRenderer) -> Sampling:
    """What the flags say, and the checkpoint's own sampling where they say nothing."""
    own = renderer.config.sampling
    return Sampling(
        steps=own.steps if chosen.steps is None else chosen.steps,
        motion_guidance=(
            own.motion_guidance if chosen.motion_guidance is None else chosen.motion_guidance
        ),
    )


def flags(arguments: list[str]) -> Namespace:
    """Read and check the command's flags. Raises InputError."""
    parser = Parser("Animate a portrait with a voice.")
    parser.add_argument("--image", required=True, help="picture with one face")
    parser.add_argument("--audio", required=True, help="speech: any audio, or video with sound")
    parser.add_argument("--output", required=True, help="MP4 file to write")
    parser.add_argument("--checkpoint", default="checkpoints/tiny", help="folder of weights")
    add_sampling(parser)
    chosen = parser.parse_args(arguments)
    check_ranges(chosen)
    check_output(chosen.output)
    return chosen


def main() -> None:
    """Generate what the flags say."""
    chosen = flags(sys.argv[1:])
    keep_compiled()
    image = read_image(chosen.image)
    samples, rate = read_audio(chosen.audio)
    speech = to_mono_16k(samples, rate)
    count, seconds = max(frames_of(len(speech)), 1), len(samples) / rate
    renderer, sampler = open_checkpoint(chosen.checkpoint)
    portrait = portrait_of(image, chosen.image, renderer)
    features = audio_features(speech, count, sampler.mel)
    stopwatch = Stopwatch()
    frames = perform(
        portrait,
        features,
        renderer,
        sampler,
        seed=chosen.seed,
        sampling=sampling_of(chosen, renderer),
        audio_guidance=chosen.audio_guidance,
        stopwatch=stopwatch,
    )
    size = renderer.config.image_size
    with (
        VideoWriter(chosen.output, size, FRAME_RATE, (samples, rate)) as video,
        progress("frames", count, "frames") as advance,
    ):
        for frame in frames:
            video.push(frame)
            advance(1)
    times = ", ".join(
        f"{stage} {spent / seconds:.2f}x" for stage, spent in stopwatch.seconds.items()
    )
    print(f"{chosen.output}: {seconds:.2f} s of video; time for each second of it: {times}")


if __name__ == "__main__":
    run(main)
