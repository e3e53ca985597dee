"""Windows over an endless sequence: how a network that sees a few frames renders any number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float


def sliding_windows(
    frames: Iterable[Float[np.ndarray, " d"]], size: int, overlap: int
) -> Iterator[tuple[Float[np.ndarray, "{size} d"], slice]]:
    """Windows of `size` frames that share `overlap` frames with the one before.

    Yields each window with the slice of it that is new. The last window is filled up by its last
    frame; every frame is new exactly once, and at most `size` frames are held.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"an overlap of {overlap} frames does not fit windows of {size}")
    window: list[np.ndarray] = []
    new_from = 0
    for frame in frames:
        window.append(frame)
        if len(window) == size:
            yield np.stack(window), slice(new_from, size)
            window, new_from = window[size - overlap :], overlap
    if len(window) > new_from:
        filled = window + [window[-1]] * (size - len(window))
        yield np.stack(filled), slice(new_from, len(window))
