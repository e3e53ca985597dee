"""Windows: how a network that sees a few frames renders any number.

Sliding windows render an endless sequence piece by piece. Circular and open windows cover a whole
video, all of which moves from noise to data together; their seams move from step to step, because
seams that stay in place show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def sliding_windows(
    frames: Iterable[Float[np.ndarray, " d"]], size: int, overlap: int
) -> Iterator[tuple[Float[np.ndarray, "{size} d"], slice]]:
    """Windows of `size` frames that share `overlap` frames with the one before.

    Yields each window with the slice of it that is new. The last window is filled up by its last
    frame; every frame is new exactly once, and at most `size` frames are held.
    """
    _check(size, overlap)
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


def circular_windows(
    frames: int, size: int, overlap: int, offset: int
) -> list[Int[np.ndarray, " n"]]:
    """Frames of windows that cover a video as if its end met its start, begun at frame `offset`.

    Windows start every size - overlap frames, and the last may overlap more than that. A video of
    up to `size` frames is one window. bytedance/x-nemo-inference src/pipelines/context.py.
    """
    _check(size, overlap)
    if frames <= size:
        return [np.arange(frames)]
    starts = np.arange(0, frames, size - overlap) + offset
    return [(start + np.arange(size)) % frames for start in starts]


def open_windows(frames: int, size: int, overlap: int, offset: int) -> list[Int[np.ndarray, " n"]]:
    """Frames of windows that cover a video from start to end, seams moved `offset` frames back.

    Neighbours overlap by `overlap` frames or more: the first and last window keep inside the video.
    """
    _check(size, overlap)
    if frames <= size:
        return [np.arange(frames)]
    stride, last = size - overlap, frames - size
    starts = np.arange(-(offset % stride), last + stride, stride)
    return [start + np.arange(size) for start in np.unique(np.clip(starts, 0, last))]


def average_windows(
    predict: Callable[[Int[np.ndarray, " n"]], Float[Array, "b n ..."]],
    windows: Sequence[Int[np.ndarray, " n"]],
    frames: int,
) -> Float[Array, "b t ..."]:
    """What `predict` says of each window's frames, averaged where windows overlap.

    Raises ValueError where the windows leave out a frame.
    """
    counts = np.bincount(np.concatenate(windows), minlength=frames)
    if not counts.all():
        raise ValueError(f"no window covers frame {np.argmin(counts)}")
    total = jnp.zeros(())
    for window in windows:
        part = predict(window).astype(jnp.float32)
        if not total.ndim:
            total = jnp.zeros((part.shape[0], frames, *part.shape[2:]))
        total = total.at[:, window].add(part)
    return total / counts.reshape(-1, *[1] * (total.ndim - 2))


def _check(size: int, overlap: int) -> None:
    if not 0 <= overlap < size:
        raise ValueError(f"an overlap of {overlap} frames does not fit windows of {size}")
