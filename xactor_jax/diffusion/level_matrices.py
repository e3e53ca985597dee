"""Level matrices: the noise level of every chunk before each sweep of a sampler.

With J chunks, K steps a chunk and A chunks in flight, which lie u = K / A steps apart, row m is

    σ[m, j] = clip(K + u j - m, 0, K) / K,    m = 0 ... K + u (J - 1)        (1)

Sweep m takes every chunk from σ[m] to σ[m + 1]. A = 1 finishes one chunk after another; more need
fewer sweeps, and show each chunk a future that is noisier than itself (diffusion forcing's pyramid,
buoyancy99/diffusion-forcing).

What the network is told of finished chunks, their label, may differ from their level of 0, as if
generated history were a little noisy: by a constant, by age (2), or by sweep (3).

    label of finished chunk j of F = highest (F - 1 - j) / (F - 1)           (2)
    label in sweep m = share of the level of the oldest chunk in flight      (3)
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

Matrix = Float[np.ndarray, "sweeps+1 chunks"]


def pyramid(chunks: int, steps: int, in_flight: int) -> Matrix:
    """Levels of `in_flight` chunks at a time, each in `steps` steps (1).

    Raises ValueError where `steps` is no multiple of `in_flight`: rounding would drop steps.
    """
    if min(chunks, steps, in_flight) < 1:
        raise ValueError("chunks, steps and chunks in flight must be at least 1")
    if steps % in_flight:
        raise ValueError(
            f"{steps} steps do not divide among {in_flight} chunks in flight; "
            f"make the steps a multiple of {in_flight}"
        )
    apart = steps // in_flight
    sweep = np.arange(steps + apart * (chunks - 1) + 1)[:, None]
    return np.clip(steps + apart * np.arange(chunks) - sweep, 0, steps) / steps


def autoregressive(chunks: int, steps: int) -> Matrix:
    """Levels of one chunk after another."""
    return pyramid(chunks, steps, 1)


def all_at_once(chunks: int, steps: int) -> Matrix:
    """Levels of all chunks falling together: full-sequence diffusion."""
    return np.repeat(pyramid(1, steps, 1), chunks, axis=1)


def updated(levels: Matrix) -> Bool[np.ndarray, "sweeps chunks"]:
    """Which chunks each sweep moves."""
    return levels[1:] < levels[:-1]


def constant_labels(levels: Matrix, label: float) -> Matrix:
    """Labels with the same one for all finished chunks."""
    return np.where(levels == 0, label, levels)


def ramp_labels(levels: Matrix, highest: float) -> Matrix:
    """Labels that fall from `highest` for the oldest finished chunk to 0 for the newest (2)."""
    finished = (levels == 0).sum(axis=1, keepdims=True)
    age = finished - 1 - np.arange(levels.shape[1])
    return np.where(levels == 0, highest * age / np.maximum(finished - 1, 1), levels)


def annealed_labels(levels: Matrix, share: float) -> Matrix:
    """Labels that fall with the level of the oldest chunk in flight (3); 0 when none is."""
    current = np.where(levels > 0, levels, np.inf).min(axis=1, keepdims=True)
    current = np.where(np.isfinite(current), current, 0.0)
    return np.where(levels == 0, share * current, levels)
