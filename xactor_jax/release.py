"""Trained weights as ready models: what generation, evaluation and later trainings start from.

A checkpoint folder holds `renderer.safetensors` (of the autoencoder or the video task) and
`motion.safetensors`; each carries its config. Converted X-NeMo networks (xnemo.py) may stand in for
the first.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from xactor_jax.batches import in_batches
from xactor_jax.checkpoint import config_of, fitting_graph, load_kind
from xactor_jax.diffusion.windows import sliding_windows
from xactor_jax.errors import InputError
from xactor_jax.evaluation.pictures import to_signed
from xactor_jax.models.renderer import Reference, Renderer, RendererConfig, Sampling
from xactor_jax.motion_sampler import MotionSampler
from xactor_jax.state import digest
from xactor_jax.xnemo import XNemoRenderer, is_converted

RENDERER_FILE, MOTION_FILE = "renderer.safetensors", "motion.safetensors"
WINDOW = 16  # frames rendered together, at most; temporal layers have seen a quarter of them before


def open_renderer(folder: str | Path) -> AnyRenderer:
    """The renderer of a checkpoint folder, trained here or converted; no motion need be beside it.

    Raises InputError where the folder or a file is missing or foreign.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such checkpoint folder; run in the project's own folder, or give "
            f"--checkpoint=FOLDER with {RENDERER_FILE} and {MOTION_FILE}"
        )
    if is_converted(folder):
        return XNemoRenderer(folder)
    return PortraitRenderer(folder / RENDERER_FILE)


def renderer_at(path: str | Path) -> AnyRenderer:
    """The renderer of a weights file, or of a checkpoint folder. Raises InputError likewise."""
    return open_renderer(path) if Path(path).is_dir() else PortraitRenderer(Path(path))


def open_checkpoint(folder: str | Path) -> tuple[AnyRenderer, MotionSampler]:
    """Both models of a checkpoint folder.

    Raises InputError where the folder or one of its files is missing or foreign, or the motion was
    learnt on latents of another encoder.
    """
    renderer = open_renderer(folder)
    return renderer, open_motion(Path(folder) / MOTION_FILE, renderer)


def open_motion(path: Path, renderer: AnyRenderer) -> MotionSampler:
    """The motion of a weights file, for a renderer. Raises InputError likewise."""
    sampler = MotionSampler.open(path)
    if sampler.encoder != renderer.encoder:
        raise InputError(
            f"{path}: trained on latents of another encoder than the renderer's; put files of one "
            "training together"
        )
    return sampler


class PortraitRenderer:
    """A trained renderer: crops to motion latents, and a portrait in motion to frames."""

    def __init__(self, path: Path):
        arrays, metadata = load_kind(path, "renderer")
        self.config = config_of(path, metadata, "renderer", RendererConfig)
        params = arrays["params"]["renderer"]
        self._graph = fitting_graph(path, lambda rngs: Renderer(self.config, rngs=rngs), params)
        self.encoder = digest(params["encoder"])
        self.weights = jax.tree.map(jnp.asarray, (params, arrays["statistics"]))

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
        return in_batches(lambda batch: self._encode(self.weights, batch), crops)

    @functools.partial(jax.jit, static_argnums=0)
    def _encode(self, weights: Any, crops: Array) -> Array:
        return self._model(weights).encoder.encode(to_signed(crops))

    @functools.partial(jax.jit, static_argnums=0)
    def _see(self, weights: Any, portrait: Array, crop: Array) -> Reference:
        model, to_batch = self._model(weights), lambda picture: to_signed(picture)[None]
        return model.see(to_batch(portrait), model.encoder.encode(to_batch(crop)))

    def see(
        self, portrait: UInt8[np.ndarray, "h w 3"], crop: UInt8[np.ndarray, "c c 3"]
    ) -> Reference:
        """What the model knows of a portrait, whose driving crop is `crop`: once per portrait."""
        return self._see(self.weights, jnp.asarray(portrait), jnp.asarray(crop))

    def noise(self, key: PRNGKeyArray) -> Float[Array, "h w c"]:
        """One picture of noise; all frames of a video start from the same."""
        size = self.config.image_size // self.config.codec.factor
        return jax.random.normal(key, (size, size, self.config.codec.channels))

    def render(
        self,
        reference: Reference,
        motion: Float[np.ndarray, "t d"],
        box: Float[np.ndarray, "t 3"],
        noise: Float[Array, "h w c"],
        sampling: Sampling,
    ) -> UInt8[np.ndarray, "t H W 3"]:
        """Frames of the portrait in the given motion: one window."""
        frames = self._render(sampling, self.weights, reference, motion[None], box[None], noise)
        return np.asarray(frames)

    def animate(
        self,
        portrait: UInt8[np.ndarray, "h w 3"],
        crop: UInt8[np.ndarray, "c c 3"],
        motion: Iterable[Float[np.ndarray, " d"]],
        box: Iterable[Float[np.ndarray, " 3"]],
        key: PRNGKeyArray,
        sampling: Sampling,
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Frames of the portrait, as many as there are of motion and box, in constant memory."""
        reference, noise = self.see(portrait, crop), self.noise(key)
        denoiser = self.config.denoiser
        size = min(WINDOW, denoiser.max_frames) if denoiser.temporal else WINDOW
        overlap = size // 4 if denoiser.temporal else 0
        rows = (np.concatenate(row) for row in zip(motion, box, strict=False))
        for window, new in sliding_windows(rows, size, overlap):
            yield from self.render(reference, window[:, :-3], window[:, -3:], noise, sampling)[new]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _render(
        self,
        sampling: Sampling,
        weights: Any,
        reference: Reference,
        motion: Array,
        box: Array,
        noise: Array,
    ) -> Array:
        start = jnp.broadcast_to(noise, (1, motion.shape[1], *noise.shape))
        frames = self._model(weights).render(start, reference, motion, box, sampling)[0]
        return jnp.clip(jnp.round(127.5 * (frames + 1)), 0, 255).astype(jnp.uint8)


AnyRenderer = PortraitRenderer | XNemoRenderer
