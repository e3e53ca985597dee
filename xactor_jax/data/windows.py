"""Which stretches of which clips a training sees: one flat index over clips of any length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from absl import logging

SOURCES = ("footage", "actor")


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


class MixedWindows:
    """Windows of footage and of actors in fixed shares, which hold all along an epoch.

    An epoch shows every window of both; the windows of the source that has too few for its share
    come again and again.

    Args:
      clips: for each source, the clips (any numbers) that its windows are of.
      lengths: of those clips, in frames.
      footage_share: of the windows, where there are both footage and actors.
    """

    def __init__(
        self,
        clips: Mapping[str, Sequence[int]],
        lengths: Mapping[str, Sequence[int]],
        window: int,
        stride: int,
        footage_share: float,
    ):
        for source in SOURCES:
            _tell_short(source, lengths[source], window)
        self._clips = clips
        windows = {source: Windows(lengths[source], window, stride) for source in SOURCES}
        if all(windows.values()):
            shares = {"footage": footage_share, "actor": 1 - footage_share}
        else:
            shares = {source: float(len(windows[source]) > 0) for source in SOURCES}
        self._windows, self._share = windows, shares["footage"]
        counts = [len(windows[s]) / shares[s] for s in SOURCES if shares[s] > 0]
        self._length = int(max(counts, default=0))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Window:
        """Sources alternate in their shares, each through its own windows."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        before = int(index * self._share)
        is_footage = int((index + 1) * self._share) > before
        source = "footage" if is_footage else "actor"
        nth = before if is_footage else index - before
        window = self._windows[source][nth % len(self._windows[source])]
        return {"clip": self._clips[source][window["clip"]], "start": window["start"]}


def _tell_short(source: str, lengths: Sequence[int], window: int) -> None:
    """Log how many clips are too short for a window: nothing else would show it."""
    short = sum(length < window for length in lengths)
    if short:
        log = logging.warning if short == len(lengths) else logging.info
        log(
            "%s: %d of %d clips are left out, with fewer than the %d frames of a window",
            source,
            short,
            len(lengths),
            window,
        )
