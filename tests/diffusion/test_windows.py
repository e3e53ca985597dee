"""Sliding windows: every frame is new once, in order, and shares its window with those before."""

import numpy as np
import pytest

from xactor_jax.diffusion.windows import sliding_windows


@pytest.mark.parametrize("count", [1, 3, 4, 5, 7, 10, 11])
@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_every_frame_is_new_exactly_once(count, overlap):
    frames, new = (np.array([float(i)]) for i in range(count)), []
    for window, part in sliding_windows(frames, 4, overlap):
        assert window.shape == (4, 1)
        places = window[:, 0].astype(int)
        new += places[part].tolist()
        # Neighbours in time, the last frame repeated where the video has ended.
        np.testing.assert_array_equal(
            places, np.minimum(np.arange(places[0], places[0] + 4), count - 1)
        )
        if part.start and count > 4:
            assert part.start == overlap
    assert new == list(range(count))


def test_windows_come_as_soon_as_they_are_full():
    taken = []

    def frames():
        for i in range(10**9):
            taken.append(i)
            yield np.array([float(i)])

    windows = sliding_windows(frames(), 4, 1)
    next(windows)
    assert len(taken) == 4
    next(windows)
    assert len(taken) == 7


def test_nothing_gives_nothing():
    assert list(sliding_windows(iter(()), 4, 1)) == []


@pytest.mark.parametrize("overlap", [-1, 4])
def test_an_overlap_that_does_not_fit_is_refused(overlap):
    with pytest.raises(ValueError, match=str(overlap)):
        next(sliding_windows(iter(()), 4, overlap))
