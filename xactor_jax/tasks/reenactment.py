"""What the autoencoder and the video task share: examples rendered, scored and shown."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.data.examples import FaceExamples
from xactor_jax.evaluation.pictures import (
    mouth_mask,
    peak_signal_to_noise,
    save_strip,
    to_signed,
)
from xactor_jax.models.renderer import Reference, Renderer
from xactor_jax.sharding import constrain, to_host

Batch = dict[str, Any]
_ROWS = ("reference", "driving", "target")
Render = Callable[[Batch], Float[np.ndarray, "b t h w 3"]]
Sampler = Callable[[Any, Any, Batch, PRNGKeyArray], Float[Array, "b t h w 3"]]


def encode_latents(renderer: Renderer, pictures: Array) -> Float[Array, "b t h w c"]:
    """The codec's latents of frames (b, t, h, w, 3) in bytes; no gradient flows."""
    t = pictures.shape[1]
    flat = to_signed(constrain(rearrange(pictures, "b t h w c -> (b t) h w c"), "rows"))
    latents = jax.lax.stop_gradient(renderer.codec.encode(flat))
    return rearrange(latents, "(b t) h w c -> b t h w c", t=t)


def encode_motion(renderer: Renderer, crops: Array) -> Float[Array, "b t d"]:
    """Motion latents of driving crops (b, t, c, c, 3) in bytes."""
    t = crops.shape[1]
    flat = constrain(rearrange(crops, "b t h w c -> (b t) h w c"), "rows")
    latents = renderer.encoder.encode(to_signed(flat))
    return rearrange(latents, "(b t) d -> b t d", t=t)


def see(renderer: Renderer, batch: Batch) -> Reference:
    """The examples' reference pictures; their own motion is taken as it is, without gradient."""
    own = encode_motion(renderer, batch["reference_driving"][:, None])[:, 0]
    return renderer.see(to_signed(batch["reference"]), jax.lax.stop_gradient(own))


def render_examples(
    renderer: Renderer, batch: Batch, key: PRNGKeyArray
) -> Float[Array, "b t h w 3"]:
    """Targets of examples, in [-1, 1], all frames of an example from one picture of noise."""
    reference = see(renderer, batch)
    motion = encode_motion(renderer, batch["driving"])
    b, t = motion.shape[:2]
    noise = jax.random.normal(key, (b, 1, *reference.latent.shape[1:]))
    noise = jnp.broadcast_to(noise, (b, t, *noise.shape[2:]))
    return renderer.render(noise, reference, motion, batch["box"], renderer.config.sampling)


def rendering(sampler: Sampler, params: Any, frozen: Any, key: PRNGKeyArray) -> Render:
    """What a task's sampler makes of batches, whole on every process, which all must ask together.

    Each sampler is compiled once for all evaluations.
    """
    return lambda batch: to_host(_sampled(sampler, params, frozen, batch, key))


@functools.partial(jax.jit, static_argnums=0)
def _sampled(sampler: Sampler, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray) -> Array:
    return sampler(params, frozen, batch, key)


def score(examples: FaceExamples, render: Render, count: int) -> dict[str, float]:
    """PSNR of held-out targets, whole and mouth, beside that of repeating the reference.

    Where targets are consecutive: how much frames change, against the truth.
    """
    numbers = {}
    for source, batch in examples.fixed_batches(count).items():
        frames, truth = render(batch), to_signed(batch["target"])
        still = np.broadcast_to(to_signed(batch["reference"])[:, None], truth.shape)
        mouth = np.asarray(mouth_mask(jnp.asarray(batch["head_box"]), truth.shape[2]))
        for name, pictures in (("psnr", frames), ("psnr_reference", still)):
            numbers[f"{source}/{name}"] = peak_signal_to_noise(pictures, truth)
            numbers[f"{source}/{name}_mouth"] = peak_signal_to_noise(pictures, truth, mouth)
        if examples.config.consecutive:
            change = [np.abs(np.diff(pictures, axis=1)).mean() for pictures in (frames, truth)]
            numbers[f"{source}/change_ratio"] = float(change[0] / change[1])
    return numbers


def save_strips(examples: FaceExamples, render: Render, count: int, folder: Path) -> None:
    """A strip of pictures for each source: reference, driving crops, truth, output.

    Runs on every process; process 0 writes.
    """
    for source, batch in examples.fixed_batches(count).items():
        shown = ("reference", "target") if examples.config.consecutive else _ROWS
        every = slice(None, None, 4 if examples.config.consecutive else 1)
        rows = {name: batch[name][:6] for name in shown}
        rows["target"] = rows["target"][:, every]
        frames = render(batch)[:6, every]
        if jax.process_index() == 0:
            save_strip(folder / f"{source}.png", rows, frames)
