import numpy as np
import pytest

from xactor_jax.data.windows import MixedWindows, Windows


@pytest.mark.parametrize("stride", [1, 3, 8, 20])
def test_the_index_holds_every_window_exactly_once(stride):
    lengths = np.random.default_rng(0).integers(0, 60, 50)
    windows = Windows(lengths, window=16, stride=stride)

    expected = []
    for clip, length in enumerate(lengths):
        starts = set(range(0, length - 15, stride))
        if length >= 16:
            starts.add(int(length) - 16)
        expected += [{"clip": clip, "start": start} for start in sorted(starts)]

    assert [windows[i] for i in range(len(windows))] == expected


def test_every_frame_of_a_long_enough_clip_is_seen():
    windows = Windows([75, 10, 33], window=16, stride=16)
    seen = {
        (w["clip"], w["start"] + k)
        for w in map(windows.__getitem__, range(len(windows)))
        for k in range(16)
    }
    assert seen == {(0, t) for t in range(75)} | {(2, t) for t in range(33)}


def test_clips_shorter_than_a_window_leave_the_index_empty():
    assert len(Windows([3, 15], window=16)) == 0
    assert len(Windows([], window=16)) == 0
    with pytest.raises(IndexError, match="window 0 of 0"):
        Windows([3], window=16)[0]


def test_few_windows_of_footage_come_again_to_keep_their_share():
    mixed = MixedWindows(
        {"footage": [4, 7], "actor": [1]}, {"footage": [6, 5], "actor": [24]}, 5, 1, 0.6
    )
    # Three windows of footage and twenty of actors, who fill two fifths of the epoch.
    drawn = [tuple(mixed[i].values()) for i in range(len(mixed))]
    assert len(drawn) == 50
    assert [window for window in drawn if window[0] == 1] == [(1, start) for start in range(20)]
    footage = [window for window in drawn if window[0] != 1]
    assert footage == [(4, 0), (4, 1), (7, 0)] * 10
    with pytest.raises(IndexError, match="window 50 of 50"):
        mixed[50]


def test_footage_that_is_too_short_for_a_window_is_told(caplog):
    MixedWindows(
        {"footage": [0, 1], "actor": [2]}, {"footage": [75, 75], "actor": [300]}, 250, 1, 0.5
    )
    assert "footage: 2 of 2 clips are left out, with fewer than the 250 frames" in caplog.text
