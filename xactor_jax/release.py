"""Trained weights as ready models: what generation, evaluation and later trainings start from.

A checkpoint folder holds `renderer.safetensors` (of the autoencoder or the video task) and
`motion.safetensors`; each carries its config.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from xactor_jax.checkpoint import load_weights
from xactor_jax.config import build
from xactor_jax.data.audio_features import MelConfig
from xactor_jax.diffusion.guidance import guided
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.rollout import Rollout
from xactor_jax.diffusion.windows import sliding_windows
from xactor_jax.errors import InputError
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.models.renderer import Renderer, RendererConfig, Sampling
from xactor_jax.nn.layers import abstract
from xactor_jax.state import named_tensors

Seen = tuple[Array, list[Array], Array]  # a portrait's latent, reference tokens and motion latent
RENDERER_FILE, MOTION_FILE = "renderer.safetensors", "motion.safetensors"
ENCODED_TOGETHER = 32  # driving crops
WINDOW = 16  # frames rendered together, at most; temporal layers have seen a quarter of them before


def read(path: Path, kind: str) -> tuple[dict, dict[str, Any]]:
    """Arrays and metadata of a weights file of one kind.

    Raises InputError for a missing or foreign file, or one of another kind.
    """
    arrays, metadata = load_weights(path)
    if metadata.get("kind") != kind:
        raise InputError(f"{path}: weights of a {metadata.get('kind')}, not of a {kind}")
    return arrays, metadata


def digest(weights: Any) -> str:
    """Names a network's weights by their values, whether stored in half precision or not."""
    found = hashlib.sha256()
    for name, array in sorted(named_tensors(weights).items()):
        found.update(name.encode() + np.asarray(array, np.float16).tobytes())
    return found.hexdigest()[:16]


def open_renderer(folder: str | Path) -> PortraitRenderer:
    """The renderer of a checkpoint folder, which needs no motion beside it.

    Raises InputError where the folder or the file is missing or foreign.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such checkpoint folder; give one with {RENDERER_FILE} and {MOTION_FILE}"
        )
    return PortraitRenderer(folder / RENDERER_FILE)


def open_checkpoint(folder: str | Path) -> tuple[PortraitRenderer, MotionSampler]:
    """Both models of a checkpoint folder.

    Raises InputError where the folder or one of its files is missing or foreign, or the motion was
    learnt on latents of another encoder.
    """
    renderer, folder = open_renderer(folder), Path(folder)
    sampler = MotionSampler.open(folder / MOTION_FILE)
    if sampler.encoder != renderer.encoder:
        raise InputError(
            f"{folder / MOTION_FILE}: trained on latents of another encoder than that of "
            f"{RENDERER_FILE}; put files of one training together"
        )
    return renderer, sampler


class PortraitRenderer:
    """A trained renderer: crops to motion latents, and a portrait in motion to frames."""

    def __init__(self, path: Path):
        arrays, metadata = read(path, "renderer")
        self.config = build(RendererConfig, metadata["renderer"])
        self.encoder = digest(arrays["params"]["renderer"]["encoder"])
        self.weights = jax.tree.map(
            jnp.asarray, (arrays["params"]["renderer"], arrays["statistics"])
        )
        model = abstract(lambda rngs: Renderer(self.config, rngs=rngs))
        self._graph = nnx.split(model, nnx.Param, ...)[0]

    def _model(self, weights: Any) -> Renderer:
        params, statistics = weights
        return nnx.merge(self._graph, params, nnx.State(statistics))

    def encode(self, crops: UInt8[np.ndarray, "b h w 3"]) -> Float[np.ndarray, "b d"]:
        """Driving crops -> motion latents; any number."""
        return np.stack(list(self.encode_each(crops)))

    def encode_each(
        self, crops: Iterable[UInt8[np.ndarray, "h w 3"]]
    ) -> Iterator[Float[np.ndarray, " d"]]:
        """Driving crops -> motion latents, in batches of a fixed size and constant memory."""
        crops = iter(crops)
        while part := list(itertools.islice(crops, ENCODED_TOGETHER)):
            filled = np.stack(part + part[:1] * (ENCODED_TOGETHER - len(part)))
            yield from np.asarray(self._encode(self.weights, filled))[: len(part)]

    @functools.partial(jax.jit, static_argnums=0)
    def _encode(self, weights: Any, crops: Array) -> Array:
        return self._model(weights).encoder.encode(crops.astype(jnp.float32) / 127.5 - 1)

    @functools.partial(jax.jit, static_argnums=0)
    def _see(self, weights: Any, portrait: Array, crop: Array) -> Seen:
        model = self._model(weights)
        latent = model.codec.encode(portrait[None].astype(jnp.float32) / 127.5 - 1)
        still = model.encoder.encode(crop[None].astype(jnp.float32) / 127.5 - 1)
        return latent, model.reference_tokens(latent), still

    def see(self, portrait: UInt8[np.ndarray, "h w 3"], crop: UInt8[np.ndarray, "c c 3"]) -> Seen:
        """What the model knows of a portrait, whose driving crop is `crop`: once per portrait."""
        return self._see(self.weights, jnp.asarray(portrait), jnp.asarray(crop))

    def noise(self, key: PRNGKeyArray) -> Float[Array, "h w c"]:
        """One picture of noise; all frames of a video start from the same."""
        size = self.config.image_size // self.config.codec.factor
        return jax.random.normal(key, (size, size, self.config.codec.channels))

    def render(
        self,
        seen: Seen,
        motion: Float[np.ndarray, "t d"],
        box: Float[np.ndarray, "t 3"],
        noise: Float[Array, "h w c"],
        sampling: Sampling,
    ) -> UInt8[np.ndarray, "t H W 3"]:
        """Frames of the portrait in the given motion: one window."""
        frames = self._render(sampling, self.weights, seen, motion[None], box[None], noise)
        return np.asarray(frames)

    def animate(
        self,
        portrait: UInt8[np.ndarray, "h w 3"],
        crop: UInt8[np.ndarray, "c c 3"],
        motion: Iterable[Float[np.ndarray, " d"]],
        box: Iterable[Float[np.ndarray, " 3"]],
        noise: Float[Array, "h w c"],
        sampling: Sampling,
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Frames of the portrait, as many as there are of motion and box, in constant memory."""
        seen, denoiser = self.see(portrait, crop), self.config.denoiser
        size = min(WINDOW, denoiser.max_frames) if denoiser.temporal else WINDOW
        overlap = size // 4 if denoiser.temporal else 0
        rows = (np.concatenate(row) for row in zip(motion, box, strict=False))
        for window, new in sliding_windows(rows, size, overlap):
            yield from self.render(seen, window[:, :-3], window[:, -3:], noise, sampling)[new]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _render(
        self, sampling: Sampling, weights: Any, seen: Seen, motion: Array, box: Array, noise: Array
    ) -> Array:
        model, (latent, tokens, still) = self._model(weights), seen
        start = jnp.broadcast_to(noise, (1, motion.shape[1], *noise.shape))
        latents = model.render(start, latent, tokens, motion, box, still, sampling)
        frames = model.codec.decode(rearrange(latents, "b t h w c -> (b t) h w c"))
        return jnp.clip(jnp.round(127.5 * (frames + 1)), 0, 255).astype(jnp.uint8)


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
    ):
        self.config, self.mel, self.flow, self.encoder = config, mel, flow, encoder
        self.weights = jax.tree.map(jnp.asarray, weights)
        self.mean, self.spread, self.deviation = (
            np.asarray(statistics[name]) for name in ("mean", "spread", "deviation")
        )
        model = abstract(lambda rngs: MotionTransformer(config, rngs=rngs))
        self._graph = nnx.split(model, nnx.Param, ...)[0]

    @classmethod
    def open(cls, path: Path) -> MotionSampler:
        """The sampler that a weights file holds."""
        arrays, metadata = read(path, "motion")
        return cls(
            build(MotionTransformerConfig, metadata["motion"]),
            build(MelConfig, metadata["mel"]),
            build(Flow, metadata["flow"]),
            arrays["params"],
            arrays["statistics"],
            metadata.get("encoder", ""),
        )

    def rollout(self, steps: int) -> Rollout:
        """The sampler of this model."""
        c = self.config
        return Rollout(chunk=c.chunk, context=c.context, flow=self.flow, steps=steps)

    def start(
        self,
        reference: Float[np.ndarray, "b d"] | None,
        key: PRNGKeyArray,
        *,
        steps: int = 10,
        audio_guidance: float = 2.0,
        batch: int = 1,
    ) -> Acting:
        """Begin to act; `reference` is the portraits' own motion latents."""
        return Acting(self, reference, key, steps, audio_guidance, batch)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def next_chunk(
        self,
        steps: int,
        weights: Any,
        history: Float[Array, "b h d"],
        known: Float[Array, "b h"],
        audio: Float[Array, "b a f"],
        audio_known: Float[Array, "b a"],
        reference: Float[Array, "b d"],
        reference_seen: Float[Array, " b"],
        noise: Float[Array, "b c d"],
        audio_guidance: Float[Array, ""],
    ) -> Float[Array, "b c d"]:
        """Standardised latents of the next chunk. `audio` covers the context and the window."""
        model = nnx.merge(self._graph, weights)
        b = len(history)
        positions = jnp.broadcast_to(jnp.arange(self.config.context), (b, self.config.context))
        heard = heard_audio(self.config, audio_known)

        def denoise(z, levels, mask):
            # With and without the audio, as one batch.
            output = model(
                jnp.tile(z, (2, 1, 1)),
                jnp.tile(levels, (2, 1)),
                jnp.tile(positions, (2, 1)),
                jnp.tile(mask, (2, 1, 1)),
                jnp.tile(audio, (2, 1, 1)),
                jnp.concatenate([heard, jnp.zeros_like(heard)]),
                jnp.tile(reference, (2, 1)),
                jnp.tile(reference_seen, 2),
            )
            return guided(output[:b], output[b:], audio_guidance)

        return self.rollout(steps).next_chunk(denoise, history, known, noise)


def heard_audio(
    config: MotionTransformerConfig, audio_known: Float[Array, "b a"]
) -> Float[Array, "b n a"]:
    """Which audio frames a context hears when its audio starts one window before it."""
    frames = audio_known.shape[1] - 2 * config.audio_window
    offset = jnp.arange(audio_known.shape[1])[None] - jnp.arange(frames)[:, None]
    near = (offset >= 0) & (offset <= 2 * config.audio_window)
    return near[None] & audio_known[:, None, :]


class Acting:
    """Motion latents of one performance (or a batch), in constant memory.

    Call `next(audio, known)` for chunk after chunk.
    """

    def __init__(
        self,
        sampler: MotionSampler,
        reference: Float[np.ndarray, "b d"] | None,
        key: PRNGKeyArray,
        steps: int,
        audio_guidance: float,
        batch: int,
    ):
        c = sampler.config
        self.sampler, self.key, self.steps = sampler, key, steps
        self.guidance = jnp.float32(audio_guidance)
        history = sampler.rollout(steps).history
        self.history = jnp.zeros((batch, history, c.latent))
        self.known = jnp.zeros((batch, history), bool)
        self.audio = np.zeros((batch, c.context + 2 * c.audio_window, c.audio), np.float32)
        self.audio_known = np.zeros(self.audio.shape[:2], bool)
        self.seen = jnp.full(batch, reference is not None)
        given = np.tile(sampler.mean, (batch, 1)) if reference is None else reference
        self.reference = jnp.asarray((given - sampler.mean) / sampler.spread)
        # What the standardised latents are differences from: (b, 1, d).
        self.origin = np.asarray(given if c.relative else np.tile(sampler.mean, (batch, 1)))[
            :, None
        ]
        self.count = 0

    def next(
        self, audio: Float[np.ndarray, "b a f"], known: Float[np.ndarray, "b a"]
    ) -> Float[np.ndarray, "b c d"]:
        """The next chunk's motion latents.

        Args:
          audio: features from one audio window before the chunk to one after it.
          known: False where there is no sound: before the start, after the end.
        """
        c = self.sampler.config
        # Slide the context by a chunk; its newest rows are those of the new chunk's surroundings.
        self.audio = np.concatenate([self.audio[:, c.chunk :], audio[:, -c.chunk :]], axis=1)
        self.audio[:, -audio.shape[1] :] = audio
        self.audio_known = np.concatenate(
            [self.audio_known[:, c.chunk :], known[:, -c.chunk :]], axis=1
        )
        self.audio_known[:, -known.shape[1] :] = known
        noise = jax.random.normal(
            jax.random.fold_in(self.key, self.count), (len(audio), c.chunk, c.latent)
        )
        self.count += 1
        chunk = self.sampler.next_chunk(
            self.steps,
            self.sampler.weights,
            self.history,
            self.known,
            jnp.asarray(self.audio),
            jnp.asarray(self.audio_known),
            self.reference,
            self.seen,
            noise,
            self.guidance,
        )
        self.history = jnp.concatenate([self.history[:, c.chunk :], chunk], axis=1)
        fresh = jnp.ones((len(audio), c.chunk), bool)
        self.known = jnp.concatenate([self.known[:, c.chunk :], fresh], axis=1)
        return np.asarray(chunk) * self.sampler.deviation + self.origin

    def act(self, features: Float[np.ndarray, "t f"]) -> Float[np.ndarray, "t d"]:
        """All of a recording's latents at once (batch of one)."""
        return np.concatenate([chunk[0] for chunk in self.chunks(features)])[: len(features)]

    def chunks(self, features: Float[np.ndarray, "t f"]) -> Iterator[Float[np.ndarray, "1 c d"]]:
        """The latents (1, c, d) of a recording, chunk after chunk."""
        c = self.sampler.config
        for start in range(0, len(features), c.chunk):
            places = np.arange(start - c.audio_window, start + c.chunk + c.audio_window)
            known = (places >= 0) & (places < len(features))
            audio = features[np.clip(places, 0, len(features) - 1)] * known[:, None]
            yield self.next(audio[None], known[None])
