"""The trained motion transformer at work: speech becomes motion latents, chunk after chunk.

A chunk is acted once it, the chunks in flight with it and one audio window after them have been
heard. It costs one pass over its own frames a step and one more to keep its keys and values; of the
past nothing is computed again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from xactor_jax.data.shards import FRAME_RATE, SAMPLE_RATE
from xactor_jax.diffusion.rollout import Rollout
from xactor_jax.full_sequence import act_together
from xactor_jax.motion_sampler import Flight, MotionSampler, MotionSampling
from xactor_jax.sharding import to_host


class Directions(Protocol):
    """What a performer is told: a `timeline.Timeline`, or anything that has its rows."""

    def frames(self, start: int, stop: int) -> Float[np.ndarray, "*#b t w"]:
        """What is told in the frames from `start` to before `stop` (data/direction.py).

        The same to all performances of a batch, unless there is an axis of them before.
        """
        ...


class Acting:
    """Motion latents of one performance (or a batch), in constant memory.

    Push audio features as they come, in pieces of any length, and take the latents that they are
    enough for; `finish` gives the rest. However the features were cut, the latents are the same,
    to the last bit.

    Args:
      reference: the portraits' own motion latents.
      sampling: None for the sampler's own.
      direction: what the performers are told. An untold performance is cheaper by the branch that
        guides the emotion.
    """

    def __init__(
        self,
        sampler: MotionSampler,
        reference: Float[np.ndarray, "b d"] | None,
        key: PRNGKeyArray,
        *,
        sampling: MotionSampling | None = None,
        batch: int = 1,
        direction: Directions | None = None,
    ):
        c, sampling = sampler.config, sampling or sampler.sampling
        if direction is None:
            sampling = dataclasses.replace(sampling, emotion_guidance=1.0)
        elif not c.direction:
            raise ValueError("these weights were not trained to be told anything")
        self.sampler, self.direction = sampler, direction
        self.key, self.history_key = jax.random.split(key)
        self.plan = sampler.plan(sampling)
        self.sampling = sampling
        self.past = sampler.empty_past(self.plan, batch)
        # Features from one window before the next chunk on; before the start there are none.
        self.audio = np.zeros((batch, c.audio_window, c.audio), np.float32)
        self.audio_known = np.zeros((batch, c.audio_window), bool)
        self.portraits, self.origin = sampler.portraits(reference, batch)
        self.pushed = self.count = 0  # frames heard, chunks acted
        self.finished = False  # whether the speech is over
        begun = range(self.rollout.chunks_in_flight)
        self.z = jnp.concatenate([self._noise(self.key, n) for n in begun], axis=1)

    @property
    def rollout(self) -> Rollout:
        """How chunks follow each other."""
        return self.plan.rollout

    @property
    def span(self) -> int:
        """Frames of sound for a chunk: those of the chunks in flight, and a window on each side."""
        return self.rollout.in_flight + 2 * self.sampler.config.audio_window

    def _noise(self, key: PRNGKeyArray, number: int) -> Float[Array, "b c d"]:
        """Noise of a chunk's own."""
        c = self.sampler.config
        shape = len(self.audio), c.chunk, c.latent
        return jax.random.normal(jax.random.fold_in(key, number), shape)

    def _told(self) -> Float[np.ndarray, "b n w"]:
        """What is told in the chunks in flight."""
        rollout, width = self.rollout, self.sampler.config.direction
        first = self.count * rollout.chunk
        if self.direction is None:
            rows = np.zeros((rollout.in_flight, width), np.float32)
        else:
            rows = self.direction.frames(first, first + rollout.in_flight)
        return np.broadcast_to(rows, (len(self.audio), *rows.shape[-2:]))

    def next(
        self, audio: Float[np.ndarray, "b a f"], known: Bool[np.ndarray, "b a"]
    ) -> Float[np.ndarray, "b c d"]:
        """The next chunk's motion latents.

        Args:
          audio: `span` features from one audio window before the chunk on.
          known: False where there is no sound: before the start, after the end.
        """
        sampler, rollout, chunk = self.sampler, self.rollout, self.sampler.config.chunk
        direction = self._told()
        flight = Flight(
            z=self.z,
            past=self.past,
            audio=jnp.asarray(audio),
            audio_known=jnp.asarray(known),
            **self.portraits,
            direction=jnp.asarray(direction),
            history_noise=self._noise(self.history_key, self.count),
            scales=self.sampling.scales(direction),
        )
        for begun in range(1, rollout.chunks_in_flight) if self.count == 0 else ():
            z = sampler.next_round(self.plan, sampler.weights, flight, rollout.levels(begun))
            flight = dataclasses.replace(flight, z=z)
        levels = rollout.levels(rollout.chunks_in_flight)
        z, self.past = sampler.next_chunk(self.plan, sampler.weights, flight, levels)
        self.count += 1
        fresh = self._noise(self.key, self.count + rollout.chunks_in_flight - 1)
        self.z = jnp.concatenate([z[:, chunk:], fresh], axis=1)
        return to_host(z[:, :chunk]) * sampler.deviation + self.origin

    def push(self, features: Float[np.ndarray, "b n f"]) -> Float[np.ndarray, "b m d"]:
        """Latents of the chunks that can be acted now that these frames are heard, if any.

        Raises ValueError after `finish`.
        """
        if self.finished:
            raise ValueError("this performance is finished: begin another one")
        self._hear(features, True)
        self.pushed += features.shape[1]
        return self._joined(self._chunks())

    def finish(self) -> Float[np.ndarray, "b m d"]:
        """Latents of what was pushed and not yet acted: the speech is over."""
        self.finished = True
        left = self.pushed - self.count * self.sampler.config.chunk
        return self._joined(self._last_chunks())[:, :left]

    def act(self, features: Float[np.ndarray, "t f"]) -> Float[np.ndarray, "t d"]:
        """All of a recording's latents at once (batch of one)."""
        return np.concatenate([chunk[0] for chunk in self.chunks(features)])[: len(features)]

    def chunks(self, features: Float[np.ndarray, "t f"]) -> Iterator[Float[np.ndarray, "1 c d"]]:
        """The latents (1, c, d) of a recording, chunk after chunk."""
        c = self.sampler.config
        for start in range(0, len(features), c.chunk):
            piece = features[None, start : start + c.chunk]
            self._hear(piece, True)
            self.pushed += piece.shape[1]
            yield from self._chunks()
        yield from self._last_chunks()

    def _hear(self, features: Float[np.ndarray, "b n f"], known: bool) -> None:
        self.audio = np.concatenate([self.audio, features], axis=1, dtype=np.float32)
        fresh = np.full(features.shape[:2], known)
        self.audio_known = np.concatenate([self.audio_known, fresh], axis=1)

    def _chunks(self) -> Iterator[Float[np.ndarray, "b c d"]]:
        """The chunks that all is heard for."""
        span, chunk, start = self.span, self.sampler.config.chunk, 0
        heard, known = self.audio, self.audio_known
        try:
            while heard.shape[1] - start >= span:
                near = slice(start, start + span)
                start += chunk
                yield self.next(heard[:, near], known[:, near])
        finally:
            # Copies: a view would keep everything that was ever pushed with it.
            self.audio, self.audio_known = heard[:, start:].copy(), known[:, start:].copy()

    def _last_chunks(self) -> Iterator[Float[np.ndarray, "b c d"]]:
        """The chunks that remain when nothing more will be heard."""
        c = self.sampler.config
        remaining = -(-self.pushed // c.chunk) - self.count
        silent = (remaining - 1) * c.chunk + self.span - self.audio.shape[1]
        if remaining > 0:
            self._hear(np.zeros((len(self.audio), silent, c.audio), np.float32), False)
            yield from self._chunks()

    def _joined(self, chunks: Iterator[Float[np.ndarray, "b c d"]]) -> np.ndarray:
        empty = np.zeros((len(self.audio), 0, self.sampler.config.latent), np.float32)
        return np.concatenate([empty, *chunks], axis=1)


def perform(
    sampler: MotionSampler,
    features: Float[np.ndarray, "b t f"],
    reference: Float[np.ndarray, "b d"] | None,
    key: PRNGKeyArray,
    *,
    sampling: MotionSampling | None = None,
    direction: Directions | None = None,
    piece: int = 60 * FRAME_RATE,
    advance: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "b t d"]:
    """All latents of recordings of one length: chunk after chunk, or as weights that do not.

    Args:
      features: audio features, one a frame.
      reference: the portraits' own motion latents.
      direction: what the performers are told.
      advance: called after every `piece` frames, if they are acted in turn.
    """
    sampling, (batch, frames, _) = sampling or sampler.sampling, features.shape
    if sampler.config.full_sequence:
        told = None if direction is None else direction.frames(0, frames)
        return act_together(sampler, features, reference, key, sampling, told)
    acting = Acting(sampler, reference, key, sampling=sampling, batch=batch, direction=direction)
    parts = []
    for start in range(0, frames, piece):
        parts.append(acting.push(features[:, start : start + piece]))
        advance()
    return np.concatenate([*parts, acting.finish()], axis=1)


class LiveActing:
    """Motion latents of a voice that is still speaking: samples in, latents out.

    Args:
      acting: a performance that has just begun, of one portrait.
      gain: what brings the voice to the level of training: `recording_gain` of earlier speech by
        the same speaker and microphone. A recording acted as a whole is measured as a whole.
    """

    def __init__(self, acting: Acting, gain: float):
        self.acting = acting
        self.features = acting.sampler.hearing.stream(gain)

    @property
    def look_ahead(self) -> float:
        """Seconds of sound after a chunk that must be heard before it is acted; at most so many."""
        chunk = self.acting.sampler.config.chunk
        # Features may come in blocks, in which chunks lie otherwise every time.
        return max(self._heard(n) - n * chunk / FRAME_RATE for n in range(1, 101))

    @property
    def latency(self) -> float:
        """Seconds from the first sound to the first latent, computing not counted."""
        return self._heard(1)

    def _heard(self, chunks: int) -> float:
        """Seconds of sound that must be heard before so many chunks are acted."""
        c, rollout = self.acting.sampler.config, self.acting.rollout
        frames = (chunks - 1) * c.chunk + rollout.in_flight + c.audio_window
        return self.acting.sampler.hearing.needed(frames) / SAMPLE_RATE

    def push(self, audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "m d"]:
        """Latents, at 25 a second, that these samples of 16 kHz mono complete; often none.

        Raises ValueError after `finish`.
        """
        return self.acting.push(self.features.push(audio)[None])[0]

    def finish(self) -> Float[np.ndarray, "m d"]:
        """The rest, up to the frame in which the last sample lies.

        Raises ValueError a second time.
        """
        last = self.acting.push(self.features.finish()[None])[0]
        return np.concatenate([last, self.acting.finish()[0]])
