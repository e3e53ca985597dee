"""Windows cover every frame; sliding ones show each as new exactly once."""

import numpy as np
import pytest

from xactor_jax.diffusion.windows import (
    average_windows,
    circular_windows,
    open_windows,
    sliding_windows,
)


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


LENGTHS = [1, 23, 24, 25, 40, 41, 44, 45, 100, 101]


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("kind", [circular_windows, open_windows])
def test_windows_cover_every_frame_from_every_offset(kind, frames):
    for offset in range(24):
        windows = kind(frames, 24, 4, offset)
        counts = np.bincount(np.concatenate(windows), minlength=frames)
        assert len(counts) == frames
        assert counts.min() >= 1
        for window in windows:
            assert len(window) == min(frames, 24)
            assert len(set(window)) == len(window)
        if frames <= 24:
            np.testing.assert_array_equal(windows, [np.arange(frames)])


@pytest.mark.parametrize("frames", [25, 41, 100])
def test_circular_windows_wrap_and_start_every_stride(frames):
    for offset in (0, 7, 23):
        windows = circular_windows(frames, 24, 4, offset)
        assert len(windows) == -(-frames // 20)
        for i, window in enumerate(windows):
            np.testing.assert_array_equal(window, (offset + 20 * i + np.arange(24)) % frames)
    # The last of 41 frames shares a window with the first.
    assert any({40, 0} <= set(window) for window in circular_windows(41, 24, 4, 0))


@pytest.mark.parametrize("frames", [25, 41, 100])
def test_open_windows_are_consecutive_and_overlap_enough(frames):
    seams = set()
    for offset in range(24):
        windows = open_windows(frames, 24, 4, offset)
        assert windows[0][0] == 0
        assert windows[-1][-1] == frames - 1
        for window in windows:
            np.testing.assert_array_equal(window, np.arange(window[0], window[0] + 24))
        starts = [window[0] for window in windows]
        assert np.all(np.diff(starts) > 0)
        assert np.all(np.diff(starts) <= 20)
        seams |= set(starts[1:-1])
    if frames == 100:  # with the offset, seams visit every frame in between
        assert seams == set(range(1, 76))


def test_the_average_of_windows_is_exact():
    frames, windows = 7, [np.array([5, 6, 0, 1]), np.arange(4), np.arange(3, 7)]
    parts = [np.full((2, 4, 3), value, np.float32) for value in (1.0, 2.0, 4.0)]
    parts[0] += np.arange(4)[None, :, None]  # 1 2 3 4 on the frames 5 6 0 1
    given = iter(parts)
    average = average_windows(lambda window: next(given), windows, frames)
    expected = [(3 + 2) / 2, (4 + 2) / 2, 2, (2 + 4) / 2, 4, (1 + 4) / 2, (2 + 4) / 2]
    np.testing.assert_array_equal(average, np.broadcast_to(np.array(expected)[:, None], (2, 7, 3)))


@pytest.mark.parametrize("kind", [circular_windows, open_windows])
def test_windows_that_agree_average_to_the_whole(kind):
    video = np.random.default_rng(0).integers(-8, 8, (1, 61, 2)).astype(np.float32)
    for offset in (0, 5, 23):
        windows = kind(61, 24, 4, offset)
        average = average_windows(lambda window: video[:, window], windows, 61)
        np.testing.assert_allclose(average, video, rtol=1e-6)


def test_a_frame_without_a_window_is_named():
    with pytest.raises(ValueError, match="frame 2"):
        average_windows(lambda window: np.zeros((1, 2)), [np.arange(2), np.arange(3, 5)], 5)


@pytest.mark.parametrize("kind", [circular_windows, open_windows])
def test_windows_that_never_advance_are_refused(kind):
    with pytest.raises(ValueError, match="24"):
        kind(100, 24, 24, 0)
