"""Measure a checkpoint on held-out footage, actors and recordings.

python -m xactor_jax.evaluate --checkpoint=checkpoints/tiny --footage=data/footage \\
    --actors=data/actors --face_models=data/face_models --speech=data/speech --output=results
"""

from __future__ import annotations

import functools
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xactor_jax.command import Parser, run, start_up
from xactor_jax.data.audio_features import MelConfig
from xactor_jax.data.shards import SAMPLES_PER_FRAME, open_shards
from xactor_jax.errors import InputError
from xactor_jax.evaluation import (
    direction,
    identity,
    motion,
    reenactment,
    speech,
)
from xactor_jax.evaluation.drift import Readers
from xactor_jax.evaluation.drift_bench import (
    DriftBench,
    encode_held_out_actors,
    read_training_actors,
)
from xactor_jax.evaluation.motion import Perform
from xactor_jax.evaluation.mouth import MouthMeter, mouth_meter
from xactor_jax.evaluation.pictures import save_strip, to_signed
from xactor_jax.evaluation.plots import save_plots
from xactor_jax.evaluation.report import print_table, write_results
from xactor_jax.evaluation.scenes import Scene, evenly, footage_clips, scene_of
from xactor_jax.generate import acting_of, add_sampling, check_ranges, sampling_of
from xactor_jax.progress import progress
from xactor_jax.release import MOTION_FILE, RENDERER_FILE, PortraitRenderer, open_motion

NEEDS = {
    "reenactment": ("footage", "actors", "face_models"),
    "identity": ("actors",),
    "motion": ("footage", "face_models"),
    "speech": ("footage", "face_models", "speech"),
    "direction": ("actors",),
    "drift": ("actors",),
}
BY_REQUEST = ("speech", "direction", "drift")
_STRIP_ROWS = 6


def flags(arguments: list[str]) -> Namespace:
    """Read and check the command's flags. Raises InputError."""
    parser = Parser("Measure a checkpoint on held-out data: a table, results.json and plots.")
    parser.add_argument("--checkpoint", default="checkpoints/tiny", help="folder of weights")
    parser.add_argument("--footage", help="folder of prepared footage")
    parser.add_argument("--actors", help="folder of synthetic actors")
    parser.add_argument("--face_models", help="folder of MediaPipe's face models")
    parser.add_argument("--speech", help="folder of unheard recordings; without, they are left out")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--clips", type=int, default=24, help="clips of each kind, at most")
    parser.add_argument(
        "--only",
        "--suite",
        default="",
        help=f"some of {','.join(NEEDS)}; if not given the first three, with --speech four",
    )
    parser.add_argument("--minutes", type=int, default=10, help="of each voice, for drift")
    add_sampling(parser)
    chosen = parser.parse_args(arguments)
    check_ranges(chosen)
    if not 2 <= chosen.clips <= 10_000:
        raise InputError(f"--clips={chosen.clips}: use 2 to 10000")
    if not 2 <= chosen.minutes <= 600:
        raise InputError(f"--minutes={chosen.minutes}: use 2 to 600")
    suites = [n for n in NEEDS if n not in BY_REQUEST]
    suites = chosen.only.split(",") if chosen.only else suites
    suites += ["speech"] if chosen.speech and not chosen.only else []
    chosen.suites = suites
    for suite in suites:
        if suite not in NEEDS:
            raise InputError(f"--only={suite}: choose from {', '.join(NEEDS)}")
        for flag in NEEDS[suite]:
            if getattr(chosen, flag) is None:
                raise InputError(f"--{flag} is missing; {suite} needs it")
    return chosen


class Evaluation:
    """Everything that the suites share, opened when the first of them needs it."""

    def __init__(self, chosen: Namespace):
        self.chosen, self.folder = chosen, Path(chosen.output)
        checkpoint = Path(chosen.checkpoint)
        if not checkpoint.is_dir():
            raise InputError(f"{checkpoint}: no such checkpoint folder")
        self.renderer = PortraitRenderer(checkpoint / RENDERER_FILE)
        self.sampler = None
        if {"motion", "speech", "direction", "drift"} & set(chosen.suites):
            self.sampler = open_motion(checkpoint / MOTION_FILE, self.renderer)
        for name, folder in (("footage", chosen.footage), ("actors", chosen.actors)):
            if any(name in NEEDS[suite] for suite in chosen.suites):
                open_shards(folder, "test")
        if "face_models" in {flag for suite in chosen.suites for flag in NEEDS[suite]}:
            self.meter: MouthMeter = mouth_meter(chosen.face_models)
        if "speech" in chosen.suites:
            self.heard, self.refused = speech.recordings(chosen.speech, chosen.clips)

    @functools.cached_property
    def scenes(self) -> list[Scene]:
        """The held-out clips."""
        shards = open_shards(self.chosen.footage, "test")
        clips = footage_clips(shards, self.chosen.clips, motion.SHORTEST)
        return [scene_of(clip, self.renderer.config) for clip in clips]

    @functools.cached_property
    def openings(self) -> list[np.ndarray]:
        """Their true mouth openings."""
        with progress("true mouths", len(self.scenes), "clips") as advance:
            found = []
            for scene in self.scenes:
                found.append(self.meter(scene.pictures, scene.head_box))
                advance(1)
        return found

    @functools.cached_property
    def act(self) -> Perform:
        """What acts to a sound."""
        assert self.sampler is not None
        return motion.performer(
            self.renderer,
            self.sampler,
            seed=self.chosen.seed,
            sampling=sampling_of(self.chosen, self.renderer),
            acting=acting_of(self.chosen, self.sampler),
        )

    def reenactment(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Sections `reenactment` and `cross_identity`."""
        sampling = sampling_of(self.chosen, self.renderer)
        options = {"seed": self.chosen.seed, "sampling": sampling}
        scenes, openings = self.scenes, self.openings
        with progress("reenactment", sum(map(len, scenes)), "frames") as advance:
            numbers = reenactment.footage(
                scenes, openings, self.renderer, self.meter, advance, **options
            )
        yield "reenactment", numbers
        shards = open_shards(self.chosen.actors, "test")
        with progress("other identities", self.chosen.clips, "motions") as advance:
            numbers, strip = reenactment.across_identities(
                shards, self.chosen.clips, self.renderer, advance, **options
            )
        rendered = to_signed(strip.pop("rendered")[:_STRIP_ROWS])
        save_strip(self.folder / "cross_identity.png", strip, rendered)
        yield "cross_identity", numbers

    def identity(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Section `identity`."""
        shards = open_shards(self.chosen.actors, "test")
        with progress("motion latents", len(shards), "clips") as advance:
            yield "identity", identity.probes(shards, self.renderer, advance, seed=self.chosen.seed)

    def motion(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Section `motion`."""
        assert self.sampler is not None
        mel, scenes, openings = MelConfig(), self.scenes, self.openings
        ridge = motion.fit_ridge(
            *motion.heard_and_seen(
                open_shards(self.chosen.footage, "train"),
                self.renderer.config,
                mel,
                self.meter,
                self.folder / "training_mouths.npz",
            )
        )
        with progress("acting", 2 * sum(map(len, scenes)), "frames") as advance:
            yield (
                "motion",
                motion.footage(scenes, openings, self.act, self.meter, ridge, mel, advance),
            )

    def speech(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Section `speech`."""
        frames = sum(len(audio) // SAMPLES_PER_FRAME for audio in self.heard.values())
        with progress("unheard speech", frames, "frames") as advance:
            numbers = speech.unheard(self.heard, self.scenes[0], self.act, self.meter, advance)
        true = speech.true_footage(self.scenes, self.openings)
        yield "speech", numbers | true | {"left_out": self.refused}

    @functools.cached_property
    def readers(self) -> Readers:
        """What latents show, read as on training actors."""
        return read_training_actors(self.chosen.actors, self.renderer)

    @functools.cached_property
    def real_motion(self) -> list[np.ndarray]:
        """Latents of every held-out actor."""
        return encode_held_out_actors(self.chosen.actors, self.renderer)

    def direction(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Section `direction`."""
        assert self.sampler is not None
        if not self.sampler.config.direction:
            raise InputError(f"{self.chosen.checkpoint}: its motion was not trained to be told")
        test = open_shards(self.chosen.actors, "test")
        places = evenly(len(test), self.chosen.clips)
        with progress("directed", 5 * len(places), "performances") as advance:
            yield (
                "direction",
                direction.followed(
                    [test[place] for place in places],
                    [self.real_motion[place] for place in places],
                    self.sampler,
                    acting_of(self.chosen, self.sampler),
                    self.readers,
                    self.chosen.seed,
                    advance,
                ),
            )

    def drift(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Section `drift`."""
        assert self.sampler is not None
        chosen = self.chosen
        bench = DriftBench.of(
            chosen.actors,
            self.renderer,
            self.readers,
            self.real_motion,
            chosen.clips,
            chosen.minutes,
        )
        acting, rendering = acting_of(chosen, self.sampler), sampling_of(chosen, self.renderer)
        yield "drift", bench.measure(self.sampler, acting, chosen.seed, rendering=rendering)


def main() -> None:
    """Evaluate what the flags say."""
    chosen = flags(sys.argv[1:])
    start_up()
    evaluation = Evaluation(chosen)
    try:
        evaluation.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{chosen.output}: cannot be written to ({error.strerror})") from None
    numbers: dict[str, dict[str, Any]] = {}
    for suite in chosen.suites:
        for section, found in getattr(evaluation, suite)():
            # Written after each section, so that what follows cannot lose it.
            numbers[section] = found
            write_results(evaluation.folder, vars(chosen), numbers)
            save_plots(evaluation.folder, section, found)
    print_table(numbers)
    print(f"{evaluation.folder}: results.json and plots")


if __name__ == "__main__":
    run(main)
