"""The trained motion transformer at work: speech becomes motion latents, chunk after chunk.

A chunk is acted once it, the chunks in flight with it and one audio window after them have been
heard. It costs one pass over its own frames a step and one more to keep its keys and values; of the
past nothing is computed again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from xactor_jax.checkpoint import config_of, fitting_graph, load_kind
from xactor_jax.data.audio_features import FeatureStream, MelConfig
from xactor_jax.data.shards import FRAME_RATE, SAMPLE_RATE
from xactor_jax.diffusion.guidance import guided
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.rollout import Rollout
from xactor_jax.models.motion_transformer import (
    KeyValueCache,
    MotionTransformer,
    MotionTransformerConfig,
)
from xactor_jax.nn.layers import abstract


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionSampling:
    """How chunks are acted."""

    steps: int = 10
    chunks_in_flight: int = 1  # over 1: a pyramid, which looks further ahead
    audio_guidance: float = 2.0  # how strongly the motion follows the voice; 1: none


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Flight:
    """The chunks in flight, and what they are acted from."""

    z: Float[Array, "b n d"]  # standardised latents, at the round's levels
    past: KeyValueCache  # of two branches, one after the other: with the audio and without
    audio: Float[Array, "b a f"]  # from one audio window before the chunks to one after them
    audio_known: Bool[
        Array, "b a"
    ]  # False where there is no sound: before the start, after the end
    reference: Float[Array, "b d"]  # the portrait's own latent
    reference_seen: Bool[Array, " b"]
    audio_guidance: Float[Array, ""]


class MotionSampler:
    """A trained motion transformer: speech features to motion latents, chunk after chunk."""

    def __init__(
        self,
        config: MotionTransformerConfig,
        mel: MelConfig,
        flow: Flow,
        weights: Any,
        statistics: Mapping[str, Float[np.ndarray, " d"]],
        encoder: str = "",
        sampling: MotionSampling | None = None,
    ):
        self.config, self.mel, self.flow, self.encoder = config, mel, flow, encoder
        self.sampling = sampling or MotionSampling()
        self.weights = jax.tree.map(jnp.asarray, weights)
        self.mean, self.spread, self.deviation = (
            np.asarray(statistics[name]) for name in ("mean", "spread", "deviation")
        )
        model = abstract(lambda rngs: MotionTransformer(config, rngs=rngs))
        self._graph = nnx.split(model, nnx.Param, ...)[0]

    @classmethod
    def open(cls, path: Path) -> MotionSampler:
        """The sampler that a weights file holds."""
        arrays, metadata = load_kind(path, "motion")
        config = config_of(path, metadata, "motion", MotionTransformerConfig)
        fitting_graph(path, lambda rngs: MotionTransformer(config, rngs=rngs), arrays["params"])
        return cls(
            config,
            config_of(path, metadata, "mel", MelConfig),
            config_of(path, metadata, "flow", Flow),
            arrays["params"],
            arrays["statistics"],
            metadata.get("encoder", ""),
            config_of(path, metadata, "sampling", MotionSampling),
        )

    def rollout(self, sampling: MotionSampling) -> Rollout:
        """The sampler of this model. Raises ValueError where the chunks in flight do not fit."""
        c = self.config
        return Rollout(
            chunk=c.chunk,
            context=c.context,
            flow=self.flow,
            steps=sampling.steps,
            chunks_in_flight=sampling.chunks_in_flight,
        )

    def empty_past(self, rollout: Rollout, batch: int) -> KeyValueCache:
        """What is known before the first chunk: nothing, with the audio and without."""
        return KeyValueCache.empty(self.config, 2 * batch, rollout.history)

    def start(
        self,
        reference: Float[np.ndarray, "b d"] | None,
        key: PRNGKeyArray,
        *,
        sampling: MotionSampling | None = None,
        batch: int = 1,
    ) -> Acting:
        """Begin to act; `reference` is the portraits' own motion latents."""
        return Acting(self, reference, key, sampling or self.sampling, batch)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def next_round(
        self,
        rollout: Rollout,
        weights: Any,
        flight: Flight,
        levels: Float[Array, "sweeps+1 chunks"],
    ) -> Float[Array, "b n d"]:
        """The chunks in flight after one round (`Rollout.levels`)."""
        return self._advance(rollout, nnx.merge(self._graph, weights), flight, levels)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def next_chunk(
        self,
        rollout: Rollout,
        weights: Any,
        flight: Flight,
        levels: Float[Array, "sweeps+1 chunks"],
    ) -> tuple[Float[Array, "b n d"], KeyValueCache]:
        """The chunks in flight after the round that finishes the first, and the past with it."""
        model, c = nnx.merge(self._graph, weights), self.config
        z = self._advance(rollout, model, flight, levels)
        seen, label = rollout.finished(z[:, : c.chunk])
        first = dataclasses.replace(
            flight,
            z=seen,
            audio=flight.audio[:, : c.chunk + 2 * c.audio_window],
            audio_known=flight.audio_known[:, : c.chunk + 2 * c.audio_window],
        )
        arguments = self._both_branches(rollout, first, jnp.full((1, c.chunk), label))
        return z, flight.past.append(model.keys_and_values(*arguments))

    def _advance(
        self, rollout: Rollout, model: MotionTransformer, flight: Flight, levels: Array
    ) -> Float[Array, "b n d"]:
        def denoise(z, level):
            at = dataclasses.replace(flight, z=z)
            output, b = model(*self._both_branches(rollout, at, level)), len(z)
            return guided(output[:b], output[b:], flight.audio_guidance)

        return rollout.advance(denoise, flight.z, levels)

    def _both_branches(
        self, rollout: Rollout, flight: Flight, level: Float[Array, "1 n"]
    ) -> tuple[Any, ...]:
        """The network's arguments, with the audio and without, as one batch."""
        b, n, _ = flight.z.shape
        heard = heard_audio(self.config, flight.audio_known)
        return (
            jnp.tile(flight.z, (2, 1, 1)),
            jnp.broadcast_to(level, (2 * b, n)),
            jnp.broadcast_to(rollout.history + jnp.arange(n), (2 * b, n)),
            flight.past.mask(n, self.config.chunk),
            jnp.tile(flight.audio, (2, 1, 1)),
            jnp.concatenate([heard, jnp.zeros_like(heard)]),
            jnp.tile(flight.reference, (2, 1)),
            jnp.tile(flight.reference_seen, 2),
            flight.past,
        )


def heard_audio(
    config: MotionTransformerConfig, audio_known: Bool[Array, "b a"]
) -> Bool[Array, "b n a"]:
    """Which audio frames a context hears when its audio starts one window before it."""
    frames = audio_known.shape[1] - 2 * config.audio_window
    offset = jnp.arange(audio_known.shape[1])[None] - jnp.arange(frames)[:, None]
    near = (offset >= 0) & (offset <= 2 * config.audio_window)
    return near[None] & audio_known[:, None, :]


class Acting:
    """Motion latents of one performance (or a batch), in constant memory.

    Push audio features as they come, in pieces of any length, and take the latents that they are
    enough for; `finish` gives the rest. However the features were cut, the latents are the same,
    to the last bit.
    """

    def __init__(
        self,
        sampler: MotionSampler,
        reference: Float[np.ndarray, "b d"] | None,
        key: PRNGKeyArray,
        sampling: MotionSampling,
        batch: int,
    ):
        c = sampler.config
        self.sampler, self.key = sampler, key
        self.rollout = sampler.rollout(sampling)
        self.guidance = jnp.float32(sampling.audio_guidance)
        self.past = sampler.empty_past(self.rollout, batch)
        # Features from one window before the next chunk on; before the start there are none.
        self.audio = np.zeros((batch, c.audio_window, c.audio), np.float32)
        self.audio_known = np.zeros((batch, c.audio_window), bool)
        self.seen = jnp.full(batch, reference is not None)
        given = np.tile(sampler.mean, (batch, 1)) if reference is None else reference
        self.reference = jnp.asarray((given - sampler.mean) / sampler.spread)
        # What the standardised latents are differences from: (b, 1, d).
        self.origin = np.asarray(given if c.relative else np.tile(sampler.mean, (batch, 1)))[
            :, None
        ]
        self.pushed = self.count = 0  # frames heard, chunks acted
        begun = range(self.rollout.chunks_in_flight)
        self.z = jnp.concatenate([self._noise(n) for n in begun], axis=1)

    @property
    def span(self) -> int:
        """Frames of sound for a chunk: those of the chunks in flight, and a window on each side."""
        return self.rollout.in_flight + 2 * self.sampler.config.audio_window

    def _noise(self, number: int) -> Float[Array, "b c d"]:
        """What a chunk begins as."""
        c = self.sampler.config
        shape = len(self.audio), c.chunk, c.latent
        return jax.random.normal(jax.random.fold_in(self.key, number), shape)

    def next(
        self, audio: Float[np.ndarray, "b a f"], known: Bool[np.ndarray, "b a"]
    ) -> Float[np.ndarray, "b c d"]:
        """The next chunk's motion latents.

        Args:
          audio: `span` features from one audio window before the chunk on.
          known: False where there is no sound: before the start, after the end.
        """
        sampler, rollout, chunk = self.sampler, self.rollout, self.sampler.config.chunk
        flight = Flight(
            z=self.z,
            past=self.past,
            audio=jnp.asarray(audio),
            audio_known=jnp.asarray(known),
            reference=self.reference,
            reference_seen=self.seen,
            audio_guidance=self.guidance,
        )
        for begun in range(1, rollout.chunks_in_flight) if self.count == 0 else ():
            z = sampler.next_round(rollout, sampler.weights, flight, rollout.levels(begun))
            flight = dataclasses.replace(flight, z=z)
        levels = rollout.levels(rollout.chunks_in_flight)
        z, self.past = sampler.next_chunk(rollout, sampler.weights, flight, levels)
        self.count += 1
        fresh = self._noise(self.count + rollout.chunks_in_flight - 1)
        self.z = jnp.concatenate([z[:, chunk:], fresh], axis=1)
        return np.asarray(z[:, :chunk]) * sampler.deviation + self.origin

    def push(self, features: Float[np.ndarray, "b n f"]) -> Float[np.ndarray, "b m d"]:
        """Latents of the chunks that can be acted now that these frames are heard, if any."""
        self._hear(features, True)
        self.pushed += features.shape[1]
        return self._joined(self._chunks())

    def finish(self) -> Float[np.ndarray, "b m d"]:
        """Latents of what was pushed and not yet acted: the speech is over."""
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
        span, chunk = self.span, self.sampler.config.chunk
        while self.audio.shape[1] >= span:
            audio, known = self.audio[:, :span], self.audio_known[:, :span]
            # Copies: a view would keep everything that was ever pushed with it.
            self.audio = self.audio[:, chunk:].copy()
            self.audio_known = self.audio_known[:, chunk:].copy()
            yield self.next(audio, known)

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


class LiveActing:
    """Motion latents of a voice that is still speaking: samples in, latents out.

    Args:
      acting: a performance that has just begun, of one portrait.
      gain: what brings the voice to the level of training: `recording_gain` of earlier speech by
        the same speaker and microphone. A recording acted as a whole is measured as a whole.
    """

    def __init__(self, acting: Acting, gain: float):
        self.acting = acting
        self.features = FeatureStream(acting.sampler.mel, gain)

    @property
    def look_ahead(self) -> float:
        """Seconds of sound after a chunk that must be heard before the chunk is acted."""
        c, rollout = self.acting.sampler.config, self.acting.rollout
        frames = rollout.in_flight - c.chunk + c.audio_window
        return frames / FRAME_RATE + self.features.look_ahead / SAMPLE_RATE

    @property
    def latency(self) -> float:
        """Seconds from the first sound to the first latent, computing not counted."""
        return self.acting.sampler.config.chunk / FRAME_RATE + self.look_ahead

    def push(self, audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "m d"]:
        """Latents, at 25 a second, that these samples of 16 kHz mono complete; often none."""
        return self.acting.push(self.features.push(audio)[None])[0]

    def finish(self) -> Float[np.ndarray, "m d"]:
        """The rest, up to the frame in which the last sample lies."""
        last = self.acting.push(self.features.finish()[None])[0]
        return np.concatenate([last, self.acting.finish()[0]])
