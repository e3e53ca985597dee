"""How faithfully the renderer repeats a performance: a person's own, and another identity's.

The baseline is the reference picture, repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.data.shards import Shards
from xactor_jax.errors import InputError
from xactor_jax.evaluation.curves import correlation, deviation_ratio
from xactor_jax.evaluation.mouth import MouthMeter
from xactor_jax.evaluation.pictures import (
    mouth_mask,
    peak_signal_to_noise,
    structural_similarity,
    to_signed,
)
from xactor_jax.evaluation.scenes import Scene, evenly, renderings, scene_of
from xactor_jax.models.renderer import Sampling
from xactor_jax.release import PortraitRenderer

ACTOR_FRAMES = 60  # of each motion, from its middle
_SHOWN = 4  # clips whose curves are kept for the plot


def reenact(
    target: Scene,
    driver: Scene,
    renderer: PortraitRenderer,
    *,
    seed: int,
    sampling: Sampling,
) -> UInt8[np.ndarray, "t s s 3"]:
    """All frames of the driver's performance on the target's first picture."""
    frames = renderer.animate(
        target.pictures[0],
        target.crops[0],
        renderer.encode(driver.crops),
        driver.box,
        jax.random.key(seed),
        sampling,
    )
    return np.stack(list(frames))


def likeness(frames: UInt8[np.ndarray, "t s s 3"], truth: Scene) -> dict[str, float]:
    """PSNR in dB of picture and mouth, and SSIM; `*_still` of the reference picture instead.

    The first frame does not count: it is the reference itself.
    """
    true = to_signed(truth.pictures[1:])
    mouth = np.asarray(mouth_mask(jnp.asarray(truth.head_box[1:]), true.shape[1]))
    still = np.broadcast_to(to_signed(truth.pictures[0]), true.shape)
    numbers = {}
    for pictures, ending in ((to_signed(frames[1:]), ""), (still, "_still")):
        numbers[f"psnr{ending}"] = peak_signal_to_noise(pictures, true)
        numbers[f"psnr_mouth{ending}"] = peak_signal_to_noise(pictures, true, mouth)
        numbers[f"ssim{ending}"] = structural_similarity(pictures, true)
    return numbers


def change(frames: UInt8[np.ndarray, "t s s 3"]) -> float:
    """Mean absolute difference of neighbouring frames, in grey levels."""
    return float(np.mean(np.abs(np.diff(frames.astype(np.int16), axis=0))))


def with_gains(numbers: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over clips, and how far PSNR is above that of the reference picture."""
    means = {name: float(np.mean([row[name] for row in numbers])) for name in numbers[0]}
    for name in ("psnr", "psnr_mouth"):
        means[f"{name}_gain"] = means[name] - means[f"{name}_still"]
    return means


def footage(
    scenes: Sequence[Scene],
    openings: Sequence[Float[np.ndarray, " t"]],
    renderer: PortraitRenderer,
    meter: MouthMeter,
    advance: Callable[[int], None],
    *,
    seed: int,
    sampling: Sampling,
) -> dict[str, Any]:
    """Held-out clips redrawn from their first frame.

    Args:
      openings: true mouth openings of the scenes.

    Returns:
      `likeness`, the mouth opening's r (mean over clips) and amplitude against the truth, and the
      frame-to-frame change over the true one.
    """
    rows, measured, changes = [], [], []
    for scene in scenes:
        frames = reenact(scene, scene, renderer, seed=seed, sampling=sampling)
        rows.append(likeness(frames, scene))
        changes.append((change(frames), change(scene.pictures)))
        measured.append(meter(frames, scene.head_box))
        advance(len(scene))
    r = [correlation(a, b) for a, b in zip(measured, openings, strict=True)]
    rendered_change, true_change = np.mean(changes, axis=0)
    return with_gains(rows) | {
        "mouth_r": float(np.mean(r)),
        "mouth_r_deviation": float(np.std(r)),
        "mouth_amplitude": deviation_ratio(measured, openings),
        "change_ratio": float(rendered_change / max(true_change, 1e-9)),
        "n": {"clips": len(scenes), "frames": sum(map(len, scenes))},
        "curves": [
            {"clip": scene.name, "true": true.tolist(), "rendered": found.tolist()}
            for scene, true, found in zip(scenes, openings, measured, strict=True)
        ][:_SHOWN],
    }


def across_identities(
    shards: Shards,
    wanted: int,
    renderer: PortraitRenderer,
    advance: Callable[[int], None],
    *,
    seed: int,
    sampling: Sampling,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Actors driven by another identity's rendering of a motion; the truth is their own.

    The head boxes are the driver's too: nothing but the first frame of the target is used.

    Returns:
      `likeness`, and for each motion a row of pictures: reference, driver, truth, rendered.

    Raises:
      InputError: no motion was rendered on two identities.
    """
    motions = renderings(shards)
    if not motions:
        cure = "make actors with --identities_per_take=2"
        raise InputError(f"{shards.folder}: no motion is shown on two identities; {cure}")
    rows, frame_count = [], 0
    strip: dict[str, list] = {"reference": [], "driver": [], "truth": [], "rendered": []}
    for number, i in enumerate(evenly(len(motions), wanted)):
        # Every other motion goes from the second identity to the first.
        one, other = motions[i][:2][:: -1 if number % 2 else 1]
        clips = shards[one], shards[other]
        length = min(map(len, clips))
        first = max((length - ACTOR_FRAMES) // 2, 1)
        chosen = [0, *range(first, min(first + ACTOR_FRAMES, length))]
        target, driver = (scene_of(clip, renderer.config, chosen) for clip in clips)
        frames = reenact(target, driver, renderer, seed=seed, sampling=sampling)
        rows.append(likeness(frames, target))
        middle = len(frames) // 2
        strip["reference"].append(target.pictures[0])
        strip["driver"].append(driver.pictures[middle])
        strip["truth"].append(target.pictures[middle])
        strip["rendered"].append(frames[middle])
        frame_count += len(frames) - 1
        advance(1)
    numbers = with_gains(rows) | {"n": {"motions": len(rows), "frames": frame_count}}
    return numbers, {name: np.stack(pictures) for name, pictures in strip.items()}
