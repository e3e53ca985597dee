"""Level matrices: every chunk gets all its steps, and no future is cleaner than its past."""

import numpy as np
import pytest

from xactor_jax.diffusion.level_matrices import (
    all_at_once,
    annealed_labels,
    autoregressive,
    constant_labels,
    pyramid,
    ramp_labels,
    updated,
)


@pytest.mark.parametrize(("in_flight", "sweeps"), [(1, 60), (2, 35), (5, 20), (10, 15)])
def test_a_pyramid_gives_every_chunk_its_steps(in_flight, sweeps):
    levels = pyramid(6, 10, in_flight)
    assert levels.shape == (sweeps + 1, 6)
    np.testing.assert_array_equal(levels[0], np.ones(6))
    np.testing.assert_array_equal(levels[-1], np.zeros(6))
    assert np.all(np.diff(levels, axis=1) >= 0)  # rows rise with the chunk
    np.testing.assert_array_equal(updated(levels).sum(axis=0), np.full(6, 10))
    # Each step is a tenth; a chunk waits, then falls without a pause, then stays.
    for chunk in range(6):
        moving = np.flatnonzero(updated(levels)[:, chunk])
        np.testing.assert_array_equal(np.diff(moving), np.ones(9))
        np.testing.assert_allclose(np.diff(levels[:, chunk])[moving], -0.1)
    assert updated(levels).sum(axis=1).max() == min(in_flight, 6)
    assert ((levels > 0) & (levels < 1)).sum(axis=1).max() <= in_flight


def test_small_matrices_entry_by_entry():
    np.testing.assert_array_equal(
        pyramid(3, 2, 2) * 2,
        [[2, 2, 2], [1, 2, 2], [0, 1, 2], [0, 0, 1], [0, 0, 0]],
    )
    np.testing.assert_array_equal(
        autoregressive(2, 2) * 2, [[2, 2], [1, 2], [0, 2], [0, 1], [0, 0]]
    )
    np.testing.assert_allclose(
        all_at_once(3, 4), np.repeat([[1], [0.75], [0.5], [0.25], [0]], 3, 1)
    )


def test_steps_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"10 steps .* 4 chunks .* multiple of 4"):
        pyramid(6, 10, 4)


@pytest.mark.parametrize("wrong", [(0, 10, 1), (6, 0, 1), (6, 10, 0)])
def test_nothing_is_no_matrix(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        pyramid(*wrong)


@pytest.mark.parametrize(
    "labels", [lambda m: constant_labels(m, 0.02), lambda m: ramp_labels(m, 0.05),
               lambda m: annealed_labels(m, 0.5)]
)  # fmt: skip
def test_labels_touch_finished_chunks_only(labels):
    levels = pyramid(5, 6, 2)
    given = labels(levels)
    np.testing.assert_array_equal(given[levels > 0], levels[levels > 0])
    assert given[levels == 0].max() > 0
    assert np.all(np.isfinite(given))


def test_labels_by_constant_age_and_sweep():
    levels = autoregressive(4, 2)
    np.testing.assert_allclose(constant_labels(levels, 0.02)[5], [0.02, 0.02, 0.5, 1])
    ramp = ramp_labels(levels, 0.06)
    np.testing.assert_allclose(ramp[2], [0, 1, 1, 1])  # one finished chunk is the newest
    np.testing.assert_allclose(ramp[5], [0.06, 0, 0.5, 1])
    np.testing.assert_allclose(ramp[8], [0.06, 0.04, 0.02, 0], atol=1e-12)
    anneal = annealed_labels(levels, 0.1)
    np.testing.assert_allclose(anneal[4], [0.1, 0.1, 1, 1])
    np.testing.assert_allclose(anneal[5], [0.05, 0.05, 0.5, 1])
    np.testing.assert_allclose(anneal[8], np.zeros(4))
    # With more chunks in flight, the oldest of them counts.
    np.testing.assert_allclose(annealed_labels(pyramid(3, 4, 2), 1.0)[4], [0.5, 0.5, 1])
