"""Whether performers do as they are told: voices of held-out actors, told what those actors did.

Each voice is acted free, and again with one kind of direction told as the actor really moved. What
the latents then show is read as in `drift`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from xactor_jax.acting import Acting
from xactor_jax.data.audio_features import audio_features
from xactor_jax.data.direction import ALL_OF, Told, direction_of, free
from xactor_jax.data.shards import Clip, audio_to_float
from xactor_jax.evaluation.curves import correlation
from xactor_jax.evaluation.drift import FELT, Latents, Readers, targets_of
from xactor_jax.motion_sampler import MotionSampler, MotionSampling

READ = ("yaw", "pitch", "blink")


def truth(clip: Clip, kind: str) -> Told:
    """One kind of what is known of a clip, told as a timeline would tell it."""
    every, rows = direction_of(clip), free(len(clip))
    rows[:, ALL_OF[kind]] = every[:, ALL_OF[kind]]
    return Told(rows)


def followed(
    clips: Sequence[Clip],
    latents: Sequence[Latents],
    sampler: MotionSampler,
    sampling: MotionSampling,
    readers: Readers,
    seed: int,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """r of what is told with what is shown, and the share of felt frames with the told emotion.

    Args:
      clips: segments of actors, at least a second long.
      latents: of all their frames; the first is the portrait's.

    Returns:
      For each of yaw, pitch, blink and emotion the number when told, and `*_free` when not.
    """
    shown: dict[str, list[tuple[Clip, Latents]]] = {}
    for clip, real in zip(clips, latents, strict=True):
        audio = audio_features(audio_to_float(clip.audio), len(clip), sampler.hearing)
        for kind in ("free", *READ, "emotion"):
            told = None if kind == "free" else truth(clip, kind)
            acting = Acting(
                sampler, real[:1], jax.random.key(seed), sampling=sampling, direction=told
            )
            shown.setdefault(kind, []).append((clip, acting.act(audio)))
            advance(1)
    found: dict[str, Any] = {}
    for name in READ:
        for ending, kind in (("", name), ("_free", "free")):
            found[name + ending] = _agreement(name, shown[kind], readers)
    for ending, kind in (("", "emotion"), ("_free", "free")):
        found["emotion" + ending] = _recognised(shown[kind], readers)
    return found | {"n": {"voices": len(clips), "frames": sum(map(len, clips))}}


def _agreement(name: str, shown: Sequence[tuple[Clip, Latents]], readers: Readers) -> float:
    pairs = [(readers.read(name, acted), targets_of(clip)[name]) for clip, acted in shown]
    return float(np.mean([correlation(read, truth) for read, truth in pairs]))


def _recognised(shown: Sequence[tuple[Clip, Latents]], readers: Readers) -> float:
    right: list[Float[np.ndarray, " t"]] = []
    for clip, acted in shown:
        felt = clip.intensity >= FELT
        right.append((readers.emotion.predict(acted) == clip.emotion)[felt])
    return float(np.concatenate(right).mean())
