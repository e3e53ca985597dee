"""What long acting is measured with: voices, portraits, readers and real motion, prepared once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from xactor_jax.data.actor_motion import Motion
from xactor_jax.data.shards import Shards, open_shards
from xactor_jax.evaluation import drift, drift_frames
from xactor_jax.evaluation.scenes import Scene, evenly, scene_of
from xactor_jax.models.renderer import Sampling
from xactor_jax.motion_sampler import MotionSampler, MotionSampling
from xactor_jax.progress import progress
from xactor_jax.release import PortraitRenderer

_PER_FRAME = ("expression", "pose", "gaze", "blink", "emotion", "intensity", "voiced")


def read_training_actors(actors: str, renderer: PortraitRenderer) -> drift.Readers:
    """What latents show, read as on training actors."""
    train = open_shards(actors, "train")
    with progress("readers", drift.FITTED_CLIPS, "clips") as advance:
        return drift.fit_readers(train, renderer, advance)


def encode_held_out_actors(actors: str, renderer: PortraitRenderer) -> list[drift.Latents]:
    """Latents of every held-out actor."""
    test = open_shards(actors, "test")
    with progress("real motion", len(test), "clips") as advance:
        return drift.real_clips(test, renderer, advance)


@dataclasses.dataclass(frozen=True, eq=False)
class DriftBench:
    """Everything that long acting is compared with; the same for every motion that is measured."""

    renderer: PortraitRenderer
    readers: drift.Readers
    real: drift.Real
    emotion_real: float  # share of real frames whose emotion is read right
    voices: Sequence[Motion]
    portraits: Float[np.ndarray, "b d"]  # their own latents
    scenes: Sequence[Scene]
    likeness: drift_frames.Likeness

    @classmethod
    def of(
        cls,
        actors: str,
        renderer: PortraitRenderer,
        readers: drift.Readers,
        clips: Sequence[drift.Latents],
        voices: int,
        minutes: int,
    ) -> DriftBench:
        """Voices that no training heard speak for `minutes`, each to a held-out portrait.

        Args:
          clips: latents of the held-out actors, in their order.
        """
        train, test = (open_shards(actors, split) for split in ("train", "test"))
        with progress("voices", voices, "scripts") as advance:
            scripts = drift.scripts(voices, minutes, advance)
        with progress("likeness", len(train), "clips") as advance:
            likeness = drift_frames.Likeness.of_actors(train, renderer.config, advance)
        places = evenly(len(test), voices)
        portraits = [places[n % len(places)] for n in range(voices)]
        return cls(
            renderer,
            readers,
            drift.Real.of(clips),
            drift.recognised(readers, test, clips),
            scripts,
            np.stack([clips[place][0] for place in portraits]),
            _first_frames(test, portraits, renderer),
            likeness,
        )

    def repeating(self) -> DriftBench:
        """The same with the first minute of every voice again and again, so that minutes differ by
        how long the acting has gone on and not by what is said and felt in them."""
        voices = [_repeated(_cut(voice, 1), len(voice) // drift.MINUTE) for voice in self.voices]
        return dataclasses.replace(self, voices=voices)

    def measure(
        self,
        sampler: MotionSampler,
        sampling: MotionSampling,
        seed: int,
        *,
        minutes: int | None = None,
        rendering: Sampling | None = None,
    ) -> dict[str, Any]:
        """Section `drift` of the results: curves by minute, and what they come to.

        Args:
          minutes: of every voice; None: all.
          rendering: how frames are rendered; None: they are not, nor measured.
        """
        voices = self.voices if minutes is None else [_cut(v, minutes) for v in self.voices]
        minutes = len(voices[0]) // drift.MINUTE
        with progress("acting", minutes, "minutes") as advance:
            acted = drift.act(sampler, voices, self.portraits, sampling, seed, advance)
        found = drift.curves(acted, voices, self.readers, self.real)
        if sampler.config.direction:
            told = drift.announcements(voices)
            with progress("acting what is told", minutes, "minutes") as advance:
                shown = drift.act(sampler, voices, self.portraits, sampling, seed, advance, told)
            found |= drift.told_emotions(shown, voices, self.readers)
        if rendering is not None:
            with progress("frames", len(voices) * minutes, "windows") as advance:
                found |= drift_frames.curves(
                    acted, self.scenes, self.renderer, self.likeness, rendering, seed, advance
                )
        sizes = {"voices": len(voices), "minutes": minutes}
        rest = {"emotion_real": self.emotion_real, "minutes": found, "n": sizes}
        return drift.summary(found) | rest


def _first_frames(shards: Shards, places: Sequence[int], renderer: PortraitRenderer) -> list[Scene]:
    return [scene_of(shards[place], renderer.config, [0]) for place in places]


def _cut(voice: Motion, minutes: int) -> Motion:
    """The first minutes of a script."""
    frames = min(minutes * drift.MINUTE, len(voice))
    per_frame = {name: getattr(voice, name)[:frames] for name in _PER_FRAME}
    audio = voice.audio[: len(voice.audio) * frames // len(voice)]
    return dataclasses.replace(voice, audio=audio, **per_frame)


def _repeated(voice: Motion, times: int) -> Motion:
    """A script again and again."""
    names = ("audio", *_PER_FRAME)
    again: dict[str, Any] = {n: np.concatenate([getattr(voice, n)] * times) for n in names}
    return dataclasses.replace(voice, **again)
