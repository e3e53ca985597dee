"""Short clips of one folder, taken together to find by how much their sound is off.

A second or two of speech cannot tell, but clips of one folder come from one recording chain.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from xactor_jax.data.shards import FRAME_RATE
from xactor_jax.preparation.settings import Sync
from xactor_jax.preparation.sync import Offset, offset

# Lags searched to either side in clips of 3 s, and the frames that it takes.
MOST, FEWEST_FRAMES = 12, 75
_LEAST_PEAK = 0.2


def offset_of(
    curves: Sequence[Sequence[float]], frames: Sequence[int], settings: Sync
) -> int | None:
    """By how many frames the sound of all these clips is late; None where that is not sure.

    Args:
      curves: `sync.agreement` of each clip at lags of -MOST to MOST.
      frames: their lengths, which weigh them. Chance agreement falls with the root of their sum,
        and the peak that is asked for with it.
    """
    least = settings.shortest_seconds * FRAME_RATE
    if sum(frames) < least:
        return None
    found: Offset = offset(np.average(np.array(curves), axis=0, weights=np.array(frames)))
    peak = max(settings.peak * float(np.sqrt(least / sum(frames))), _LEAST_PEAK)
    if found.peak < peak or found.margin < settings.margin:
        return None
    return found.frames if abs(found.frames) >= settings.smallest else 0


def mend(
    rows: Sequence[dict[str, Any]], settings: Sync, shortest_seconds: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of clips; where a folder's offset is sure, those with a curve take it, cut by it.

    `shift` is what is left to do to the stored clip: its sound is so many frames late.

    Returns:
      Rows to keep, and with their `reason` those that become shorter than clips may be.
    """
    if not (settings.enabled and settings.pooled):
        return list(rows), []
    folders: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in rows:
        if row["offset_frames"] is None and row["curve"]:
            folders[row["identity"]].append(row)
    late = {
        name: offset_of([row["curve"] for row in part], [row["frames"] for row in part], settings)
        for name, part in folders.items()
    }
    kept, short = [], []
    for row in rows:
        found = late.get(row["identity"]) if row["curve"] else None
        if row["offset_frames"] is not None or found is None:
            kept.append(row)
            continue
        seconds = (row["frames"] - abs(found)) / FRAME_RATE
        if seconds >= shortest_seconds:
            kept.append(row | _cut(row, found))
        else:
            short.append(row | {"reason": f"only {seconds:.2f} s once the sound is in step"})
    return kept, short


def _cut(row: dict[str, Any], late: int) -> dict[str, Any]:
    """What changes in a row when the frames are dropped whose sound is not there."""
    return {
        "offset_frames": late,
        "shift": late,
        "start_seconds": row["start_seconds"] + max(-late, 0) / FRAME_RATE,
        "end_seconds": row["end_seconds"] - max(late, 0) / FRAME_RATE,
    }
