"""The trained motion transformer at work: speech becomes motion latents, chunk after chunk.

A chunk is acted once it and one audio window after it have been heard. It costs one pass over its
own frames a step and one more to keep its keys and values; of the past nothing is computed again.
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
    audio_guidance: float = 2.0  # how strongly the motion follows the voice; 1: none


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

    def rollout(self, steps: int) -> Rollout:
        """The sampler of this model."""
        c = self.config
        return Rollout(chunk=c.chunk, context=c.context, flow=self.flow, steps=steps)

    def empty_past(self, batch: int) -> KeyValueCache:
        """What is known before the first chunk: nothing, with the audio and without."""
        c = self.config
        return KeyValueCache.empty(c, 2 * batch, c.context - c.chunk)

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
    def next_chunk(
        self,
        steps: int,
        weights: Any,
        past: KeyValueCache,
        audio: Float[Array, "b a f"],
        audio_known: Bool[Array, "b a"],
        reference: Float[Array, "b d"],
        reference_seen: Bool[Array, " b"],
        noise: Float[Array, "b c d"],
        audio_guidance: Float[Array, ""],
    ) -> tuple[Float[Array, "b c d"], KeyValueCache]:
        """Standardised latents of the next chunk, and the past with that chunk in it.

        Args:
          past: of two branches, one after the other: with the audio and without.
          audio: from one audio window before the chunk to one after it.
        """
        model, rollout = nnx.merge(self._graph, weights), self.rollout(steps)
        b, c, _ = noise.shape
        positions = jnp.broadcast_to(rollout.history + jnp.arange(c), (2 * b, c))
        heard = heard_audio(self.config, audio_known)
        conditions = (
            jnp.tile(audio, (2, 1, 1)),
            jnp.concatenate([heard, jnp.zeros_like(heard)]),
            jnp.tile(reference, (2, 1)),
            jnp.tile(reference_seen, 2),
            past,
        )

        def arguments(z, level):
            # With and without the audio, as one batch.
            levels = jnp.full((2 * b, 1), level)
            return jnp.tile(z, (2, 1, 1)), levels, positions, past.mask(c), *conditions

        def denoise(z, level):
            output = model(*arguments(z, level))
            return guided(output[:b], output[b:], audio_guidance)

        chunk = rollout.next_chunk(denoise, noise)
        return chunk, past.append(model.keys_and_values(*arguments(*rollout.finished(chunk))))


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
        self.sampler, self.key, self.steps = sampler, key, sampling.steps
        self.guidance = jnp.float32(sampling.audio_guidance)
        self.past = sampler.empty_past(batch)
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

    def next(
        self, audio: Float[np.ndarray, "b a f"], known: Bool[np.ndarray, "b a"]
    ) -> Float[np.ndarray, "b c d"]:
        """The next chunk's motion latents.

        Args:
          audio: features from one audio window before the chunk to one after it.
          known: False where there is no sound: before the start, after the end.
        """
        c = self.sampler.config
        noise = jax.random.normal(
            jax.random.fold_in(self.key, self.count), (len(audio), c.chunk, c.latent)
        )
        self.count += 1
        chunk, self.past = self.sampler.next_chunk(
            self.steps,
            self.sampler.weights,
            self.past,
            jnp.asarray(audio),
            jnp.asarray(known),
            self.reference,
            self.seen,
            noise,
            self.guidance,
        )
        return np.asarray(chunk) * self.sampler.deviation + self.origin

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
        c = self.sampler.config
        span = c.chunk + 2 * c.audio_window
        while self.audio.shape[1] >= span:
            audio, known = self.audio[:, :span], self.audio_known[:, :span]
            # Copies: a view would keep everything that was ever pushed with it.
            self.audio = self.audio[:, c.chunk :].copy()
            self.audio_known = self.audio_known[:, c.chunk :].copy()
            yield self.next(audio, known)

    def _last_chunks(self) -> Iterator[Float[np.ndarray, "b c d"]]:
        """The chunks that remain when nothing more will be heard."""
        c = self.sampler.config
        remaining = -(-self.pushed // c.chunk) - self.count
        silent = remaining * c.chunk + 2 * c.audio_window - self.audio.shape[1]
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
        frames = self.acting.sampler.config.audio_window
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
