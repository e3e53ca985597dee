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
from jaxtyping import Array, ArrayLike, Bool, Float

from xactor_jax.checkpoint import config_of, fitting_graph, load_kind
from xactor_jax.config import build
from xactor_jax.data.audio_features import Hearing, MelConfig
from xactor_jax.data.direction import ALL_OF, FLAGS
from xactor_jax.data.speech_features import SPEECH_FILE, SpeechModel, SpeechWindow
from xactor_jax.diffusion.guidance import guided_by_each
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.rollout import Rollout
from xactor_jax.diffusion.samplers import follow
from xactor_jax.errors import InputError
from xactor_jax.models.motion_cache import Heard, KeyValueCache, Modulation, Remembered
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.nn.layers import abstract, in_compute_type, input_first, output_first
from xactor_jax.sharding import platform


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionSampling:
    """How chunks are acted; a guidance of 1 is none and costs nothing."""

    steps: int = 10
    chunks_in_flight: int = 1  # over 1: a pyramid, which looks further ahead
    audio_guidance: float = 2.0  # how strongly the motion follows the voice
    emotion_guidance: float = 1.0  # ... the emotion that is told
    guide_remembered: bool = False  # ... also after it is told, while the past was acted by it
    history_guidance: float = 1.0  # ... what was acted before
    history_level: float = 0.02  # how noisy finished chunks are said to be
    commit: str = "scaled"  # how finished chunks are kept: diffusion/rollout.py
    sink: int = 0  # first frames that are never forgotten

    @property
    def guidance(self) -> dict[str, float]:
        """The scales of what guides, by what is hidden for it."""
        scales = {
            "emotion": self.emotion_guidance,
            "history": self.history_guidance,
            "audio": self.audio_guidance,  # the last: rows that hear nothing are the last ones
        }
        return {name: scale for name, scale in scales.items() if scale != 1}

    def scales(self, direction: Float[ArrayLike, "b n w"]) -> Float[Array, "k b n 1"]:
        """The scale of each that guides, in frames that are told this (data/direction.py).

        The branch that is not told an emotion has never been: after the telling it still differs
        from the other by its past, and with `guide_remembered` its guidance goes on. Without, what
        is acted holds emotions better (docs/drift.md).
        """
        told = jnp.asarray(direction)
        scales = [jnp.full((*told.shape[:2], 1), scale) for scale in self.guidance.values()]
        if "emotion" in self.guidance and not self.guide_remembered:
            place = list(self.guidance).index("emotion")
            scales[place] = jnp.where(told[..., [FLAGS["emotion"]]] > 0, scales[place], 1.0)
        return jnp.stack(scales) if scales else jnp.ones((0, *told.shape[:2], 1))


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
    scales: Float[Array, "k b n 1"]  # guidance, one for each hidden part: `MotionSampling.scales`

    def first(self, chunk: int, audio: int) -> Flight:
        """The first chunk alone, with so many frames of sound."""
        return dataclasses.replace(
            self,
            z=self.z[:, :chunk],
            audio=self.audio[:, :audio],
            audio_known=self.audio_known[:, :audio],
            direction=self.direction[:, :chunk],
            scales=self.scales[:, :, :chunk],
        )


Once = tuple[Heard, Remembered]
"""What all passes of a round see: the flight's audio, one for all branches, and their pasts."""


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
            for_acting(config, arrays["params"]),
            arrays["statistics"],
            metadata.get("encoder", ""),
            config_of(path, metadata, "sampling", MotionSampling),
        )

    def plan(self, sampling: MotionSampling) -> Plan:
        """How this model samples. Raises ValueError where chunks in flight or the sink do not fit,
        and where there is an emotion guidance but nothing can be told.
        """
        return Plan(rollout_of(self.config, self.flow, sampling), self.branches(sampling))

    def branches(self, sampling: MotionSampling) -> tuple[str, ...]:
        """What is hidden from each branch of the batch; from the first, nothing.

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

    def network(self, weights: Any) -> MotionTransformer:
        """The network with weights as they are or as `for_acting` has them."""
        return nnx.merge(self._graph, input_first(weights))

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def predict(
        self,
        branches: tuple[str, ...],
        weights: Any,
        flight: Flight,
        level: Float[Array, "1 n"],
    ) -> Float[Array, "b n d"]:
        """The guided network's output for the frames in flight, at their levels."""
        model = self.network(weights)
        output = model(*self._arguments(branches, flight, level, _once(model, flight)))
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
        labelled may then differ from sweep to sweep (diffusion/level_matrices.py). Where they are
        kept `noised`, `history_noise` is that of all chunks in flight.
        """
        model = self.network(weights)
        told = _at_levels(model, levels[:-1] if labels is None else labels[:-1])
        once = _once(model, flight)
        return self._advance(plan, weights, flight, once, levels, told, labels)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def next_chunk(
        self, plan: Plan, weights: Any, flight: Flight, levels: Float[Array, "sweeps+1 chunks"]
    ) -> tuple[Float[Array, "b n d"], KeyValueCache]:
        """The chunks in flight after the round that finishes the first, and the past with it."""
        model, rollout, c = self.network(weights), plan.rollout, self.config
        once = _once(model, flight)
        if rollout.commit == "kept":
            told = _at_levels(model, levels[:-1])
            z, made = self._advance_and_keep(plan, weights, flight, once, levels, told)
            return z, flight.past.append(made, rollout.sink)
        label = jnp.full_like(levels[:1], rollout.history_level, dtype=flight.z.dtype)
        told = _at_levels(model, jnp.concatenate([levels[:-1], label]))
        z = self._advance(plan, weights, flight, once, levels, _sweeps(told, slice(-1)))
        audio = c.chunk + 2 * c.audio_window
        seen, _ = rollout.finished(z[:, : c.chunk], flight.history_noise)
        first = dataclasses.replace(flight.first(c.chunk, audio), z=seen)
        at = jax.tree.map(lambda x: x[-1, :, :1], told)
        arguments = self._arguments(plan.branches, first, at, (once[0].first(audio), once[1]))
        return z, flight.past.append(model.keys_and_values(*arguments), rollout.sink)

    def _advance(
        self,
        plan: Plan,
        weights: Any,
        flight: Flight,
        once: Once,
        levels: Float[Array, "sweeps+1 chunks"],
        told: Modulation,
        labels: Float[Array, "sweeps+1 chunks"] | None = None,
    ) -> Float[Array, "b n d"]:
        """The chunks in flight after the sweeps of a level matrix.

        told: what the labels of each sweep (by default its levels) do; see `_at_levels`.
        """

        def denoise(z: Array, told: Modulation) -> Array:
            # Made here, in the loop: XLA transposes outside of it what comes from outside.
            model, at = self.network(weights), dataclasses.replace(flight, z=z)
            arguments = self._arguments(plan.branches, at, told, once)
            return guided_by_each(model(*arguments), flight.scales)

        noised = labels is not None and plan.rollout.commit == "noised"
        added = flight.history_noise if noised else None
        chunk = self.config.chunk
        return follow(denoise, flight.z, levels, self.flow, chunk, labels, added, told=told)

    def _advance_and_keep(
        self,
        plan: Plan,
        weights: Any,
        flight: Flight,
        once: Once,
        levels: Array,
        told: Modulation,
    ) -> tuple[Float[Array, "b n d"], KeyValueCache]:
        """The same, and the first chunk's keys and values in the last sweep."""
        before, last = _sweeps(told, slice(-1)), _sweeps(told, -1)
        z = self._advance(plan, weights, flight, once, levels[:-1], before)
        model, at = self.network(weights), dataclasses.replace(flight, z=z)
        arguments = self._arguments(plan.branches, at, last, once)
        output = guided_by_each(model(*arguments), flight.scales)
        z = follow(lambda z, level: output, z, levels[-2:], self.flow, self.config.chunk)
        return z, model.keys_and_values(*arguments).first(self.config.chunk)

    def _arguments(
        self,
        branches: tuple[str, ...],
        flight: Flight,
        level: Float[Array, "1 m"] | Modulation,
        once: Once,
    ) -> tuple[Any, ...]:
        """The network's arguments for all branches as one batch."""
        sound, past = once
        (b, n, _), history, count = flight.z.shape, len(flight.past.known), len(branches)
        heard, direction = heard_audio(self.config, flight.audio_known), flight.direction
        hearing = count - ("audio" in branches)
        mask = jnp.tile(flight.past.mask(n, self.config.chunk), (b, 1, 1))

        def without(name: str, seen: Array, unseen: Array) -> Array:
            return jnp.concatenate([unseen if each == name else seen for each in branches])

        untold = direction
        if "emotion" in branches:
            untold = direction.at[..., jnp.asarray(ALL_OF["emotion"])].set(0)
        return (
            jnp.tile(flight.z, (count, 1, 1)),
            level,
            history + np.arange(n)[None],
            without("history", mask, mask.at[..., :history].set(False)),
            sound.copies(hearing),
            jnp.tile(heard, (hearing, 1, 1)),
            jnp.tile(flight.reference, (count, 1)),
            jnp.tile(flight.reference_seen, count),
            without("emotion", direction, untold),
            past,
        )


def rollout_of(config: MotionTransformerConfig, flow: Flow, sampling: MotionSampling) -> Rollout:
    """How chunks follow each other. Raises ValueError where chunks or the sink do not fit."""
    return Rollout(
        chunk=config.chunk,
        context=config.context,
        flow=flow,
        steps=sampling.steps,
        chunks_in_flight=sampling.chunks_in_flight,
        history_level=sampling.history_level,
        commit=sampling.commit,
        sink=sampling.sink,
    )


def _at_levels(model: MotionTransformer, levels: Float[Array, "sweeps chunks"]) -> Modulation:
    """What the levels of sweeps do: one row a sweep and chunk, whose frames share it.

    All in one, since their weights are a quarter of the network's.
    """
    return model.modulation(jnp.asarray(levels)[:, None])


def _sweeps(told: Modulation, which: int | slice) -> Modulation:
    """What those of some sweeps do."""
    return jax.tree.map(lambda x: x[which], told)


def for_acting(config: MotionTransformerConfig, weights: Any) -> Any:
    """Weights as this device is fastest with, chunk after chunk: kernels as they are multiplied."""
    weights = in_compute_type(weights, jnp.dtype(config.dtype))
    return output_first(weights) if platform() == "cpu" else weights


def _once(model: MotionTransformer, flight: Flight) -> Once:
    """What all passes over the chunks in flight have in common."""
    return model.hear(flight.audio), flight.past.turned()


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
) -> Bool[Array, "b n window"]:
    """Which frames of its audio window each frame hears, with audio from one window before on."""
    window = 2 * config.audio_window + 1
    frames = audio_known.shape[1] - window + 1
    return jnp.stack([audio_known[:, n : n + frames] for n in range(window)], axis=-1)
