"""Which stretches of which clips a training sees: one flat index over clips of any length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np


class Window(TypedDict):
    """Where a window lies: the clip's position in its shards and the first frame in that clip."""

    clip: int
    start: int


class Windows:
    """Every window of `window` frames, `stride` apart, of clips of given lengths; random access.

    A clip's windows start at 0, stride, 2 stride, ... and the last one ends with the clip, so every
    frame of a clip that is long enough is in some window. Shorter clips have none.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, window: int, stride: int = 1):
        if window < 1 or stride < 1:
            raise ValueError(f"window={window} and stride={stride} must be positive")
        self._room = np.asarray(lengths, np.int64).reshape(-1) - window
        self._stride = stride
        counts = np.where(self._room >= 0, -(-self._room // stride) + 1, 0)
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Window:
        """The window at `index`, 0 up to the length; clips in order, then starts in order."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        clip = int(np.searchsorted(self._ends, index, side="right"))
        nth = index - (int(self._ends[clip - 1]) if clip else 0)
        return {"clip": clip, "start": int(min(nth * self._stride, self._room[clip]))}
