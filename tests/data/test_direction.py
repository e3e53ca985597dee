"""What is known of a clip as directions, and which part of them a training tells."""

import numpy as np
import pytest

from xactor_jax.data.direction import (
    ALL_OF,
    ANGLE,
    COLUMNS,
    FLAGS,
    KINDS,
    WIDTH,
    direction_of,
    felt,
    free,
    stillness,
    tell,
    thinned,
)
from xactor_jax.data.shards import EMOTIONS, Clip


def clip(length, **truth):
    return Clip(
        clip="c",
        source="actor",
        identity="mona",
        size=8,
        frames=[b""] * length,
        head_box=np.zeros((length, 3), np.float32),
        audio=np.zeros(length * 640, np.int16),
        **truth,
    )


def test_every_column_belongs_to_one_kind():
    assert sorted(column for columns in ALL_OF.values() for column in columns) == list(range(WIDTH))
    assert list(ALL_OF) == list(KINDS)


def test_a_head_that_turns_at_half_the_lively_rate_is_half_still():
    turning = np.zeros((100, 3))
    turning[:, 0] = np.radians(15) * np.arange(100) / 25
    np.testing.assert_allclose(stillness(turning), 0.5, atol=1e-6)
    np.testing.assert_array_equal(stillness(np.ones((100, 3))), 1)
    np.testing.assert_array_equal(stillness(100 * turning), 0)
    # A second's mean: a head that stops is half still in the middle of that second.
    turning[50:] = turning[50]
    found = stillness(turning)
    assert found[50] == pytest.approx(0.75, abs=0.02)
    assert found[30] == pytest.approx(0.5) and found[70] == pytest.approx(1)
    assert stillness(np.zeros((1, 3))).tolist() == [1]


def test_an_actors_truth_is_all_told_and_footage_tells_nothing():
    pose = np.radians([[20, -10, 5, 0, 0]] * 3).astype(np.float32)
    happy = EMOTIONS.index("happy")
    found = direction_of(
        clip(
            3,
            pose=pose,
            gaze=np.radians([[10, 0]] * 3).astype(np.float32),
            blink=np.float32([0, 1, 0.5]),
            emotion=np.int8([0, happy, happy]),
            intensity=np.float32([0, 0.25, 0.75]),
        )
    )
    assert found.shape == (3, WIDTH)
    np.testing.assert_array_equal(found[:, list(FLAGS.values())], 1)
    np.testing.assert_allclose(found[:, COLUMNS["yaw"]], 2, rtol=1e-6)  # in units of 10 degrees
    np.testing.assert_allclose(found[:, COLUMNS["pitch"]], -1, rtol=1e-6)
    np.testing.assert_allclose(found[:, COLUMNS["gaze"]], [[1, 0]] * 3, rtol=1e-6)
    np.testing.assert_allclose(found[:, COLUMNS["blink"]][:, 0], [0, 1, 0.5])
    strengths = np.zeros((3, len(EMOTIONS) - 1))
    strengths[:, happy - 1] = [0, 0.25, 0.75]
    np.testing.assert_allclose(found[:, COLUMNS["emotion"]], strengths)
    np.testing.assert_array_equal(direction_of(clip(4)), np.zeros((4, WIDTH)))


def test_telling_one_kind_leaves_the_others_free():
    rows = free(5)
    tell(rows, "roll", ANGLE / 2, slice(1, 3))
    expected = np.zeros((5, WIDTH))
    expected[1:3, ALL_OF["roll"]] = [0.5, 1]
    np.testing.assert_allclose(rows, expected)
    assert felt(0, 1.0).tolist() == [0, 0, 0, 0]  # neutral


def test_a_training_tells_every_part_and_nothing_else():
    known = np.random.default_rng(0).normal(size=(20, WIDTH)).astype(np.float32)
    known[:, list(FLAGS.values())] = 1
    nothing, kinds, whole = 0, dict.fromkeys(KINDS, 0), 0
    for seed in range(400):
        left = thinned(known, np.random.default_rng(seed), 0.25, 0.4)
        nothing += not left.any()
        for kind, columns in ALL_OF.items():
            told = left[:, FLAGS[kind]] > 0
            np.testing.assert_array_equal(left[told][:, columns], known[told][:, columns])
            assert not left[~told][:, columns].any()
            assert np.abs(np.diff(told.astype(int))).sum() <= 2  # one stretch
            kinds[kind] += bool(told.any())
            whole += bool(told.all())
    # Binomial: within three deviations of the share, one of twenty stretches being empty.
    assert abs(nothing / 400 - 0.25 - 0.75 * 0.4**7) < 3 * np.sqrt(0.25 * 0.75 / 400)
    for count in kinds.values():
        assert abs(count / 400 - 0.75 * 0.6) < 0.02 + 3 * np.sqrt(0.45 * 0.55 / 400)
    assert 0.4 < whole / sum(kinds.values()) < 0.6
    assert not thinned(known, np.random.default_rng(0), 1.0, 0.0).any()
    assert not thinned(free(20), np.random.default_rng(0), 0.0, 0.0).any()
