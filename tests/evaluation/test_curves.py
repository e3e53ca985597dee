import numpy as np
import pytest

from xactor_jax.evaluation.curves import (
    best_lag,
    correlation,
    correlation_at_lags,
    deviation_ratio,
    without_trend,
)

TIME = np.arange(200) / 25


def test_correlation_of_shifted_sines_is_the_cosine_of_the_shift():
    whole = np.arange(100) * 2 * np.pi / 50  # two whole periods
    for shift in (0.0, 0.7, np.pi / 2, np.pi):
        assert correlation(np.sin(whole), 3 + 2 * np.sin(whole + shift)) == pytest.approx(
            np.cos(shift), abs=1e-12
        )


def test_a_curve_that_does_not_change_agrees_with_nothing():
    assert correlation(np.full(20, 0.3), np.sin(np.arange(20))) == 0


@pytest.mark.parametrize("late", [-4, 0, 3])
def test_the_best_lag_is_by_how_much_the_first_curve_is_late(late):
    noise = np.random.default_rng(0).normal(size=120)
    against = noise[10:100]
    curve = noise[10 - late : 100 - late]
    found = correlation_at_lags(curve, against, 5)
    assert best_lag(found) == late
    assert found.max() == pytest.approx(1)


def test_the_common_part_of_two_lengths_counts():
    noise = np.random.default_rng(1).normal(size=80)
    assert correlation_at_lags(noise, noise[:60], 3)[3] == pytest.approx(1)
    with pytest.raises(ValueError, match="too few"):
        correlation_at_lags(noise, noise[:6], 5)


def test_deviation_ratio_ignores_offsets_between_clips():
    truth = [np.sin(TIME), 5 + np.sin(TIME)]
    assert deviation_ratio([0.5 * np.sin(TIME), 0.5 * np.sin(TIME)], truth) == pytest.approx(0.5)
    assert deviation_ratio(truth, [np.ones(5)]) == 0


def test_the_trend_is_taken_away_and_fast_change_stays():
    fast = np.sin(2 * np.pi * 5 * TIME)
    rest = without_trend(0.2 * TIME + 3 + fast)
    inside = slice(13, -13)  # a repeated end bends the average there
    # A straight line equals its own symmetric average; a 5 Hz sine averages to 1e-3 under 1 s Hann.
    np.testing.assert_allclose(rest[inside], fast[inside], atol=5e-3)
