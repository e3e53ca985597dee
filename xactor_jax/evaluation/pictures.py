"""How close pictures are, where the mouth is, and pictures side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from PIL import Image

# The mouth in head boxes: how far below the box's centre, and half its height and width.
MOUTH_BELOW, MOUTH_HALF_HEIGHT, MOUTH_HALF_WIDTH = 0.24, 0.22, 0.28


def mouth_mask(head_box: Float[Array, "*s 3"], size: int) -> Bool[Array, "*s size size"]:
    """Where the mouth and its surroundings lie; head boxes are (cy, cx, side) of the picture."""
    place = (jnp.arange(size) + 0.5) / size
    cy, cx, side = (head_box[..., k, None, None] for k in range(3))
    rows = jnp.abs(place[:, None] - cy - MOUTH_BELOW * side) < MOUTH_HALF_HEIGHT * side
    columns = jnp.abs(place[None, :] - cx) < MOUTH_HALF_WIDTH * side
    return rows & columns


def mouth_weights(
    head_box: Float[Array, "*s 3"], size: int, weight: float
) -> Float[Array, "*s size size"]:
    """Weights with mean 1 that count the mouth `weight` times as much as the rest."""
    weights = 1 + (weight - 1) * mouth_mask(head_box, size)
    return weights / jnp.mean(weights, axis=(-2, -1), keepdims=True)


def peak_signal_to_noise(
    pictures: Float[np.ndarray, "*s h w 3"],
    truth: Float[np.ndarray, "*s h w 3"],
    mask: Bool[np.ndarray, "*s h w"] | None = None,
) -> float:
    """Mean over pictures of the PSNR in dB, values in [-1, 1], inside the mask where given."""
    error = np.mean((np.clip(pictures, -1, 1) - truth) ** 2, axis=-1)
    mask = np.ones(error.shape, bool) if mask is None else np.asarray(mask)
    mean = np.sum(error * mask, axis=(-2, -1)) / np.sum(mask, axis=(-2, -1))
    return float(np.mean(10 * np.log10(4 / np.maximum(mean, 1e-10))))


def structural_similarity(
    pictures: Float[np.ndarray, "n h w 3"], truth: Float[np.ndarray, "n h w 3"]
) -> float:
    """Mean SSIM over pictures, values in [-1, 1], at least 11 pixels wide.

    Gaussian window of 11 pixels, deviation 1.5, where it lies wholly inside; mean of the channels
    (Wang et al., "Image quality assessment", 2004; tf.image.ssim does the same).
    """

    def blurred(picture: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(picture, (11, 11), 1.5)[5:-5, 5:-5]

    small_mean, small_variance = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    found = []
    for picture, true in zip(pictures, truth, strict=True):
        a, b = (np.clip(image, -1, 1).astype(np.float64) for image in (picture, true))
        mean_a, mean_b = blurred(a), blurred(b)
        variances = blurred(a * a) - mean_a**2 + blurred(b * b) - mean_b**2
        covariance = blurred(a * b) - mean_a * mean_b
        light = (2 * mean_a * mean_b + small_mean) / (mean_a**2 + mean_b**2 + small_mean)
        shape = (2 * covariance + small_variance) / (variances + small_variance)
        found.append(np.mean(light * shape))
    return float(np.mean(found))


def to_signed(pictures: Any) -> Any:
    """Bytes -> [-1, 1] in fp32, of numpy's or JAX's arrays."""
    return pictures.astype(np.float32) / 127.5 - 1


def to_bytes(pictures: Float[np.ndarray, "*s 3"]) -> np.ndarray:
    """[-1, 1] -> uint8."""
    return np.clip(np.round(127.5 * (np.asarray(pictures) + 1)), 0, 255).astype(np.uint8)


def save_strip(path: Path, rows: Mapping[str, np.ndarray], output: np.ndarray) -> None:
    """Examples below each other: each row of pictures side by side, then the output in [-1, 1]."""
    size = output.shape[-2]

    def scaled(picture: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))

    strips = []
    for n in range(len(output)):
        pictures = []
        for row in [*rows.values(), to_bytes(output)]:
            several = row[n] if row[n].ndim == 4 else row[n][None]
            pictures += [scaled(picture) for picture in several]
        strips.append(np.concatenate(pictures, axis=1))
    Image.fromarray(np.concatenate(strips)).save(path)
