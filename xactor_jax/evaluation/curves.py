"""How well two curves agree in time: correlation, size, delay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Curve = Float[np.ndarray, " t"]


def correlation(a: Curve, b: Curve) -> float:
    """Pearson's r; 0 where a curve does not change, for it agrees with nothing."""
    a, b = (np.asarray(curve, np.float64) - np.mean(curve) for curve in (a, b))
    size = np.sqrt(np.sum(a**2) * np.sum(b**2))
    return float(np.sum(a * b) / size) if size > 1e-12 else 0.0


def correlation_at_lags(curve: Curve, against: Curve, most: int) -> Float[np.ndarray, " lags"]:
    """r at every lag from -most to most frames; it peaks at k where `curve` comes k frames late.

    Of curves of two lengths, the common part counts. Raises ValueError when less than two frames
    would be left to compare.
    """
    length = min(len(curve), len(against))
    if length < most + 2:
        raise ValueError(f"{length} frames are too few for lags of up to {most}")
    found = []
    for lag in range(-most, most + 1):
        later = curve[max(lag, 0) : length + min(lag, 0)]
        earlier = against[max(-lag, 0) : length + min(-lag, 0)]
        found.append(correlation(later, earlier))
    return np.array(found)


def best_lag(curve: Float[np.ndarray, " lags"]) -> int:
    """The lag in frames at which `correlation_at_lags` (or a mean of several) is highest."""
    return int(np.argmax(curve)) - len(curve) // 2


def deviation_ratio(measured: Sequence[Curve], truth: Sequence[Curve]) -> float:
    """Standard deviation inside the measured curves over that inside the true ones."""
    inside = [np.mean([np.var(curve) for curve in curves]) for curves in (measured, truth)]
    return float(np.sqrt(inside[0] / inside[1])) if inside[1] > 1e-12 else 0.0


def without_trend(curve: Curve, frames: int = 25) -> Curve:
    """The curve less its moving average under a Hann window about `frames` long; ends repeat."""
    window = np.hanning(frames + 2)[1:-1]
    padded = np.pad(curve, frames // 2, mode="edge")
    average = np.convolve(padded, window / window.sum(), "valid")
    return curve - average[: len(curve)]
