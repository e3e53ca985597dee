"""Whether the mouth opens with the voice on unheard recordings, where no true face is known.

The score is the correlation of mouth opening and log loudness, both without their one-second trend.
True footage and swapped sounds are the yardsticks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from xactor_jax.data.shards import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from xactor_jax.errors import InputError
from xactor_jax.evaluation.curves import best_lag, correlation_at_lags, without_trend
from xactor_jax.evaluation.motion import Perform, still_box
from xactor_jax.evaluation.mouth import MouthMeter
from xactor_jax.evaluation.scenes import Scene, evenly
from xactor_jax.media.audio import read_mono_16k

MOST_LAG = 12
LONGEST = 8 * SAMPLE_RATE  # samples of a recording that are used, from its start
SHORTEST = FRAME_RATE * SAMPLES_PER_FRAME


def log_loudness(audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " t"]:
    """Logarithm of the root mean square of every whole frame of sound, floored 80 dB below peak."""
    whole = audio[: len(audio) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].astype(np.float64)
    size = np.sqrt(np.mean(whole.reshape(-1, SAMPLES_PER_FRAME) ** 2, axis=1))
    return np.log(size + 1e-4 * size.max() + 1e-9)


def loudness_agreement(
    opening: Float[np.ndarray, " t"], audio: Float[np.ndarray, " samples"]
) -> Float[np.ndarray, " lags"]:
    """r of mouth opening and log loudness at lags of -12 to 12 frames; positive: mouth later."""
    curves = without_trend(opening), without_trend(log_loudness(audio))
    return correlation_at_lags(*curves, MOST_LAG)


def recordings(
    folder: str | Path, wanted: int
) -> tuple[dict[str, Float[np.ndarray, " samples"]], dict[str, str]]:
    """At most `wanted` recordings of a folder, and why its other files cannot be used.

    Raises InputError when none can.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of recordings")
    usable, refused = {}, {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            audio = read_mono_16k(path, seconds=LONGEST / SAMPLE_RATE)
        except InputError as error:
            refused[path.name] = str(error)
            continue
        if len(audio) < SHORTEST:
            refused[path.name] = f"{path}: shorter than a second"
        else:
            usable[str(path.relative_to(folder))] = audio
    if not usable:
        raise InputError(f"{folder}: no recording of a second or more here")
    names = list(usable)
    return {names[i]: usable[names[i]] for i in evenly(len(names), wanted)}, refused


def unheard(
    heard: dict[str, Float[np.ndarray, " samples"]],
    scene: Scene,
    act: Perform,
    meter: MouthMeter,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Every recording acted on one held-out picture.

    Returns:
      The mean score at lag 0 and the lag of the mean curve's peak in frames; `swapped` is the score
      against the next recording's loudness.
    """
    openings = {}
    for name, audio in heard.items():
        frames = len(audio) // SAMPLES_PER_FRAME
        openings[name] = meter(act(scene, audio, frames), still_box(scene, frames))
        advance(frames)
    curves = {name: loudness_agreement(openings[name], audio) for name, audio in heard.items()}
    names = list(heard)
    swapped = [
        loudness_agreement(openings[name], heard[names[i - 1]]) for i, name in enumerate(names)
    ]
    mean = np.mean(list(curves.values()), axis=0)
    return {
        "score": float(mean[MOST_LAG]),
        "peak": best_lag(mean),
        "swapped": float(np.mean(swapped, axis=0)[MOST_LAG]) if len(names) > 1 else None,
        "lags": mean.tolist(),
        "recordings": {name: float(curve[MOST_LAG]) for name, curve in curves.items()},
        "n": {"recordings": len(heard), "frames": sum(map(len, openings.values()))},
    }


def true_footage(
    scenes: Sequence[Scene], openings: Sequence[Float[np.ndarray, " t"]]
) -> dict[str, Any]:
    """The same score of real clips with their own sound: `true_score`, `true_peak`, `true_lags`."""
    pairs = zip(openings, scenes, strict=True)
    curves = [loudness_agreement(opening, scene.audio) for opening, scene in pairs]
    mean = np.mean(curves, axis=0)
    return {
        "true_score": float(mean[MOST_LAG]),
        "true_peak": best_lag(mean),
        "true_lags": mean.tolist(),
    }
