"""Which of several faces is the one that is heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.data.shards import SAMPLES_PER_FRAME
from xactor_jax.preparation.settings import Speaker
from xactor_jax.preparation.sync import agreement


def speaker(
    mouths: Sequence[UInt8[np.ndarray, "t 16 24"]],
    audio: Float[np.ndarray, " samples"],
    settings: Speaker,
    most: int,
) -> tuple[int | None, list[float]]:
    """The face whose mouth moves with the sound, or None where that is not clear.

    Args:
      mouths: the mouth of every face in the same frames.
      audio: 16 kHz sound of these frames.
      most: lags in frames that are searched; the sound may be off.

    Returns:
      Its place in `mouths`, and the highest agreement of each. All faces are heard by one clock, so
      the speaker's is taken at its own best lag.
    """
    if len(mouths) == 1:
        return 0, [float("nan")]
    heard = audio[: min(map(len, mouths)) * SAMPLES_PER_FRAME]
    try:
        found = [float(agreement(mouth, heard, most).max()) for mouth in mouths]
    except ValueError:
        return None, [float("nan")] * len(mouths)
    first, second = np.argsort(found)[::-1][:2]
    sure = found[first] >= settings.least and found[first] - found[second] >= settings.margin
    return (int(first) if sure else None), found
