"""Which of several faces is the one that is heard."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.data.shards import SAMPLES_PER_FRAME
from xactor_jax.preparation.settings import Speaker, fewest_frames
from xactor_jax.preparation.sync import agreement

# Who is seen for less of a face's time than this may be heard in little of it, and is ignored.
_LEAST_SHARED = 1 / 3


@dataclasses.dataclass(frozen=True, eq=False)
class Mouth:
    """The mouth of one face, in frames from `start` on."""

    start: int
    pixels: UInt8[np.ndarray, "t 16 24"]

    @property
    def end(self) -> int:
        """The first frame after it."""
        return self.start + len(self.pixels)


def refusals(
    mouths: Sequence[Mouth], audio: Float[np.ndarray, " samples"], settings: Speaker, most: int
) -> list[str]:
    """Why each face is not taken as one that speaks while it is seen; empty where it is.

    Every face is compared with one other at a time, in the frames that both are seen in: one that
    is lost and found again is two faces here, which share no frame. All are heard by one clock, so
    each agrees with the sound at its own best lag.

    Args:
      audio: 16 kHz sound from frame 0 on.
      most: lags in frames that are searched; the sound may be off.
    """

    @functools.cache
    def agrees(mouth: Mouth, start: int, end: int) -> float:
        pixels = mouth.pixels[max(start - mouth.start, 0) : end - mouth.start]
        heard = audio[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
        if min(len(pixels), len(heard) // SAMPLES_PER_FRAME) < fewest_frames(most):
            return math.nan
        return float(agreement(pixels, heard, most).max())

    def refusal(mouth: Mouth) -> str:
        rivals = [other for other in mouths if other is not mouth and _matters(other, mouth)]
        faces, unclear = len(rivals) + 1, ""
        for other in rivals:
            start, end = max(mouth.start, other.start), min(mouth.end, other.end)
            if len(other.pixels) < fewest_frames(most):
                start, end = mouth.start, mouth.end  # only the face itself can be judged
            own, rival = agrees(mouth, start, end), agrees(other, start, end)
            known = [f"{score:.2f}" for score in (own, rival) if math.isfinite(score)]
            scores = " against ".join(known) or "too short to tell"
            if rival >= settings.least and rival - own >= settings.margin:
                return f"another of {faces} faces speaks ({scores})"
            ahead = math.isnan(rival) or own - rival >= settings.margin
            if not (own >= settings.least and ahead):
                unclear = f"{faces} faces, and it is not clear who speaks ({scores})"
        return unclear

    return [refusal(mouth) for mouth in mouths]


def _matters(other: Mouth, mouth: Mouth) -> bool:
    shared = min(mouth.end, other.end) - max(mouth.start, other.start)
    return shared >= _LEAST_SHARED * len(mouth.pixels)
