"""The trained motion transformer as compiled functions: one round of chunks, and their past.

Guidance compares the network's output with what it says when something is hidden from it: the
audio, the emotion it is told, or everything finished. Each is one branch of one batch with keys and
values of its own, since what is heard and told enters them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from xactor_jax.checkpoint import config_of, fitting_graph, load_kind
from xactor_jax.config import build
from xactor_jax.data.audio_features import Hearing, MelConfig
from xactor_jax.data.direction import ALL_OF
from xactor_jax.data.speech_features import SPEECH_FILE, SpeechModel, SpeechWindow
from xactor_jax.diffusion.guidance import guided_by_each
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.rollout import Rollout
from xactor_jax.diffusion.samplers import ChunkDenoiser, follow
from xactor_jax.errors import InputError
from xactor_jax.models.motion_transformer import (
    KeyValueCache,
    MotionTransformer,
    MotionTransformerConfig,
)
from xactor_jax.nn.layers import abstract


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionSampling:
    """How chunks are acted; a guidance of 1 is none and costs nothing."""

    steps: int = 10
    chunks_in_flight: int = 1  # over 1: a pyramid, which looks further ahead
    audio_guidance: float = 2.0  # how strongly the motion follows the voice
    emotion_guidance: float = 1.0  # ... the emotion that is told
    history_guidance: float = 1.0  # ... what was acted before
    history_level: float = 0.02  # how noisy finished chunks are said to be
    commit: str = "scaled"  # how finished chunks are kept: diffusion/rollout.py
    sink: int = 0  # first frames that are never forgotten

    @property
    def guidance(self) -> dict[str, float]:
        """The scales of what guides, by what is hidden for it."""
        scales = {
            "audio": self.audio_guidance,
            "emotion": self.emotion_guidance,
            "history": self.history_guidance,
        }
        return {name: scale for name, scale in scales.items() if scale != 1}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a compiled round depends on, beside its arrays."""

    rollout: Rollout
    branches: tuple[str, ...]  # see `MotionSampler.branches`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Flight:
    """The chunks in flight, and what they are acted from."""

    z: Float[Array, "b n d"]  # standardised latents, at the round's levels
    past: KeyValueCache  # of all branches, one after the other
    audio: Float[Array, "b a f"]  # from one audio window before the chunks to one after them
    audio_known: Bool[
        Array, "b a"
    ]  # False where there is no sound: before the start, after the end
    direction: Float[Array, "b n w"]  # what the performer is told (data/direction.py)
    reference: Float[Array, "b d"]  # the portrait's own latent
    reference_seen: Bool[Array, " b"]
    history_noise: Float[Array, "b c d"]  # for a first chunk that is kept as noisy as it is said
    scales: Float[Array, " k"]  # guidance, one for each hidden part

    def first(self, chunk: int, audio: int) -> Flight:
        """The first chunk alone, with so many frames of sound."""
        return dataclasses.replace(
            self,
            z=self.z[:, :chunk],
            audio=self.audio[:, :audio],
            audio_known=self.audio_known[:, :audio],
            direction=self.direction[:, :chunk],
        )


class MotionSampler:
    """A trained motion transformer: speech features to motion latents, chunk after chunk."""

    def __init__(
        self,
        config: MotionTransformerConfig,
        hearing: Hearing,
        flow: Flow,
        weights: Any,
        statistics: Mapping[str, Float[np.ndarray, " d"]],
        encoder: str = "",
        sampling: MotionSampling | None = None,
    ):
        self.config, self.hearing, self.flow, self.encoder = config, hearing, flow, encoder
        self.sampling = sampling or MotionSampling()
        self.weights = jax.tree.map(jnp.asarray, weights)
        self.mean, self.spread, self.deviation = (
            np.asarray(statistics[name]) for name in ("mean", "spread", "deviation")
        )
        model = abstract(lambda rngs: MotionTransformer(config, rngs=rngs))
        self._graph = nnx.split(model, nnx.Param, ...)[0]

    @classmethod
    def open(cls, path: Path) -> MotionSampler:
        """The sampler that a weights file holds, and the wav2vec2 beside it if it hears by one."""
        arrays, metadata = load_kind(path, "motion")
        config = config_of(path, metadata, "motion", MotionTransformerConfig)
        fitting_graph(path, lambda rngs: MotionTransformer(config, rngs=rngs), arrays["params"])
        return cls(
            config,
            _hearing(path, metadata),
            config_of(path, metadata, "flow", Flow),
            arrays["params"],
            arrays["statistics"],
            metadata.get("encoder", ""),
            config_of(path, metadata, "sampling", MotionSampling),
        )

    def plan(self, sampling: MotionSampling) -> Plan:
        """How this model samples. Raises ValueError where chunks in flight or the sink do not fit,
        and where there is an emotion guidance but nothing can be told.
        """
        c = self.config
        rollout = Rollout(
            chunk=c.chunk,
            context=c.context,
            flow=self.flow,
            steps=sampling.steps,
            chunks_in_flight=sampling.chunks_in_flight,
            history_level=sampling.history_level,
            commit=sampling.commit,
            sink=sampling.sink,
        )
        return Plan(rollout, self.branches(sampling))

    def branches(self, sampling: MotionSampling) -> tuple[str, ...]:
        """What each branch of the batch does not see; the first one sees everything.

        Raises ValueError where there is an emotion guidance but nothing can be told.
        """
        if "emotion" in sampling.guidance and not self.config.direction:
            raise ValueError("these weights were not trained to be told an emotion")
        return ("", *sampling.guidance)

    def portraits(
        self, reference: Float[np.ndarray, "b d"] | None, batch: int
    ) -> tuple[dict[str, Array], Float[np.ndarray, "b 1 d"]]:
        """What the network is told of the portraits, and what latents are differences from.

        reference: their own motion latents; None to do without.
        """
        given = np.tile(self.mean, (batch, 1)) if reference is None else reference
        told = {
            "reference": jnp.asarray((given - self.mean) / self.spread),
            "reference_seen": jnp.full(batch, reference is not None),
        }
        origin = given if self.config.relative else np.tile(self.mean, (batch, 1))
        return told, np.asarray(origin)[:, None]

    def empty_past(self, plan: Plan, batch: int) -> KeyValueCache:
        """What is known before the first chunk: nothing, in any branch."""
        rows = len(plan.branches) * batch
        return KeyValueCache.empty(self.config, rows, plan.rollout.history)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def predict(
        self,
        branches: tuple[str, ...],
        weights: Any,
        flight: Flight,
        level: Float[Array, "1 n"],
    ) -> Float[Array, "b n d"]:
        """The guided network's output for the frames in flight, at their levels."""
        model = nnx.merge(self._graph, weights)
        output = model(*self._arguments(branches, flight, level))
        return guided_by_each(output, flight.scales)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def next_round(
        self,
        plan: Plan,
        weights: Any,
        flight: Flight,
        levels: Float[Array, "sweeps+1 chunks"],
        labels: Float[Array, "sweeps+1 chunks"] | None = None,
    ) -> Float[Array, "b n d"]:
        """The chunks in flight after the sweeps of any level matrix, such as `Rollout.levels`.

        With no frames of past, and finished chunks in flight, nothing need be kept: what they are
        labelled may then differ from sweep to sweep (diffusion/level_matrices.py).
        """
        model = nnx.merge(self._graph, weights)
        denoise = self._denoiser(plan, model, flight)
        return follow(denoise, flight.z, levels, self.flow, self.config.chunk, labels)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def next_chunk(
        self, plan: Plan, weights: Any, flight: Flight, levels: Float[Array, "sweeps+1 chunks"]
    ) -> tuple[Float[Array, "b n d"], KeyValueCache]:
        """The chunks in flight after the round that finishes the first, and the past with it."""
        model, rollout = nnx.merge(self._graph, weights), plan.rollout
        if rollout.commit == "kept":
            z, made = self._advance_and_keep(plan, model, flight, levels)
        else:
            z, c = self._advance(plan, model, flight, levels), self.config
            seen, label = rollout.finished(z[:, : c.chunk], flight.history_noise)
            first = flight.first(c.chunk, c.chunk + 2 * c.audio_window)
            first = dataclasses.replace(first, z=seen)
            arguments = self._arguments(plan.branches, first, jnp.full((1, c.chunk), label))
            made = model.keys_and_values(*arguments)
        return z, flight.past.append(made, rollout.sink)

    def _advance(
        self, plan: Plan, model: MotionTransformer, flight: Flight, levels: Array
    ) -> Float[Array, "b n d"]:
        denoise = self._denoiser(plan, model, flight)
        return follow(denoise, flight.z, levels, self.flow, self.config.chunk)

    def _denoiser(self, plan: Plan, model: MotionTransformer, flight: Flight) -> ChunkDenoiser:
        """The guided network, with the flight's past and conditions."""

        def denoise(z, level):
            at = dataclasses.replace(flight, z=z)
            return guided_by_each(model(*self._arguments(plan.branches, at, level)), flight.scales)

        return denoise

    def _advance_and_keep(
        self, plan: Plan, model: MotionTransformer, flight: Flight, levels: Array
    ) -> tuple[Float[Array, "b n d"], KeyValueCache]:
        """The same, and the first chunk's keys and values in the last sweep."""
        z, chunk = self._advance(plan, model, flight, levels[:-1]), self.config.chunk
        level = jnp.repeat(levels[-2], chunk)[None]
        arguments = self._arguments(plan.branches, dataclasses.replace(flight, z=z), level)
        output = guided_by_each(model(*arguments), flight.scales)
        z = follow(lambda z, level: output, z, levels[-2:], self.flow, chunk)
        return z, model.keys_and_values(*arguments).first(chunk)

    def _arguments(
        self, branches: tuple[str, ...], flight: Flight, level: Float[Array, "1 n"]
    ) -> tuple[Any, ...]:
        """The network's arguments for all branches as one batch."""
        (b, n, _), history, count = flight.z.shape, len(flight.past.known), len(branches)
        heard, direction = heard_audio(self.config, flight.audio_known), flight.direction
        mask = jnp.tile(flight.past.mask(n, self.config.chunk), (b, 1, 1))

        def without(name: str, seen: Array, unseen: Array) -> Array:
            return jnp.concatenate([unseen if each == name else seen for each in branches])

        untold = direction
        if "emotion" in branches:
            untold = direction.at[..., jnp.asarray(ALL_OF["emotion"])].set(0)
        return (
            jnp.tile(flight.z, (count, 1, 1)),
            jnp.broadcast_to(level, (count * b, n)),
            jnp.broadcast_to(history + jnp.arange(n), (count * b, n)),
            without("history", mask, mask.at[..., :history].set(False)),
            jnp.tile(flight.audio, (count, 1, 1)),
            without("audio", heard, jnp.zeros_like(heard)),
            jnp.tile(flight.reference, (count, 1)),
            jnp.tile(flight.reference_seen, count),
            without("emotion", direction, untold),
            flight.past,
        )


def _hearing(path: Path, metadata: Mapping[str, Any]) -> Hearing:
    """What the weights of a file learnt to hear by."""
    if "speech" not in metadata:
        return config_of(path, dict(metadata), "mel", MelConfig)
    window = build(SpeechWindow, metadata["speech"]["window"])
    model = SpeechModel(path.with_name(SPEECH_FILE), window)
    if model.digest != metadata["speech"]["digest"]:
        raise InputError(
            f"{path}: trained with another wav2vec2 than the {SPEECH_FILE} beside it; put that of "
            "its training there"
        )
    return model


def heard_audio(
    config: MotionTransformerConfig, audio_known: Bool[Array, "b a"]
) -> Bool[Array, "b n a"]:
    """Which audio frames a context hears when its audio starts one window before it."""
    frames = audio_known.shape[1] - 2 * config.audio_window
    offset = jnp.arange(audio_known.shape[1])[None] - jnp.arange(frames)[:, None]
    near = (offset >= 0) & (offset <= 2 * config.audio_window)
    return near[None] & audio_known[:, None, :]
