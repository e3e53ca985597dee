"""What each way to draw levels shows the network, against shares known in closed form.

Contexts are 25 chunks; counted are chunks with at least ten before them that are neither clean
(level up to 0.05) nor pure noise.
"""

import jax
import numpy as np
import pytest
from scipy import stats

from xactor_jax.diffusion.noise_levels import (
    Forcing,
    clean_prefix,
    independent,
    propagated,
    staircase,
)

BATCH, CHUNKS, CLEAN, PURE = 40_000, 25, 0.05, 1 - 1e-6


def only(**shares):
    """A mixture of these ways alone."""
    return Forcing(**{"clean_history": 0, "independent": 0, "staircase": 0, **shares})


def shown(levels):
    """Trained chunks a sequence, how many of them have a clean past, and its mean level.

    A clean past: of the ten chunks before, all but the nearest are clean.
    """
    levels = np.asarray(levels, np.float64)
    count = clean = history = 0.0
    for j in range(10, CHUNKS):
        trained = (levels[:, j] > CLEAN) & (levels[:, j] < PURE)
        count += trained.sum()
        clean += (trained & np.all(levels[:, j - 10 : j - 1] <= CLEAN, axis=1)).sum()
        history += (levels[:, :j].mean(axis=1) * trained).sum()
    return count / len(levels), clean / count, history / count


def test_independent_levels_never_show_a_long_clean_past():
    count, clean, history = shown(independent(jax.random.key(0), BATCH, CHUNKS))
    assert count == pytest.approx(15 * 0.95, abs=0.03)  # deviation 0.004
    assert clean == 0  # expected: 0.05 to the ninth
    assert history == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize(("in_flight", "clean_share"), [(1, 1.0), (2, 1.0), (4, 0.53)])
def test_the_staircase_shows_a_clean_past_and_trains_few(in_flight, clean_share):
    count, clean, history = shown(staircase(jax.random.key(1), BATCH, CHUNKS, in_flight))
    # Each of 24 + A places of the stairs is as likely; 95 % of the levels in flight are not clean.
    assert count == pytest.approx(15 * in_flight * 0.95 / (24 + in_flight), rel=0.02)
    assert clean == pytest.approx(clean_share, abs=0.02)
    assert history < 0.035


def test_prefixes_of_half_the_sequences_show_a_clean_past_now_and_then():
    mixture = only(independent=1, clean_prefix=1, prefix_level=CLEAN)
    count, clean, history = shown(mixture.levels(jax.random.key(2), BATCH, CHUNKS, 1).noisy)
    # A chunk j is behind the prefix in j + 1 of 25 cases.
    expected = 0.95 * (15 + sum(j + 1 for j in range(10, 25)) / 25) / 2
    assert count == pytest.approx(expected, abs=0.05)
    # Reference values of a separate simulation of as many sequences.
    assert clean == pytest.approx(0.050, abs=0.004)
    assert history == pytest.approx(0.40, abs=0.01)


def test_levels_of_a_prefix_are_uniform_up_to_its_own():
    levels = np.asarray(clean_prefix(jax.random.key(2), BATCH, CHUNKS, CLEAN))
    # The first chunk is in the prefix, or free and by chance as clean.
    prefix = levels[:, 0][levels[:, 0] <= CLEAN]
    share = 24 / 25 + CLEAN / 25  # a prefix of no chunk is as likely as any other
    assert len(prefix) / BATCH == pytest.approx(share, abs=5 * np.sqrt(share / 25 / BATCH))
    assert stats.kstest(prefix / CLEAN, "uniform").statistic < 1.95 / np.sqrt(len(prefix))


def test_propagated_levels_rise_and_sometimes_show_a_clean_past():
    levels = np.asarray(propagated(jax.random.key(3), BATCH, CHUNKS))
    assert np.all(np.diff(levels, axis=1) >= 0)
    assert levels.min() >= 0
    assert levels.max() <= 1
    count, clean, history = shown(levels)
    expected = shown(propagated_one_by_one(np.random.default_rng(0)))
    # Two simulations of as many sequences; a sequence's count deviates by about 4.
    assert count == pytest.approx(expected[0], abs=5 * 4 * np.sqrt(2 / BATCH))
    assert clean == pytest.approx(expected[1], abs=0.01)
    assert clean > 0.1
    assert history == pytest.approx(expected[2], abs=0.01)


def propagated_one_by_one(draw):
    """The same levels by their definition, from chunk to chunk."""
    anchor = draw.integers(CHUNKS, size=BATCH)
    levels = np.zeros((BATCH, CHUNKS))
    levels[np.arange(BATCH), anchor] = draw.uniform(size=BATCH)
    for chunk in reversed(range(CHUNKS - 1)):
        before = chunk < anchor
        levels[before, chunk] = draw.uniform(0, levels[before, chunk + 1])
    for chunk in range(1, CHUNKS):
        after = chunk > anchor
        levels[after, chunk] = draw.uniform(levels[after, chunk - 1], 1)
    return levels


def test_propagated_levels_halve_their_distance_from_the_ends_at_every_chunk():
    levels = np.asarray(propagated(jax.random.key(4), BATCH, CHUNKS), np.float64)
    # k chunks before the anchor the mean is a half of that one chunk nearer, from 1/2 at it.
    distance = np.arange(CHUNKS) - np.arange(CHUNKS)[:, None]  # of chunk from anchor
    mean = np.where(distance <= 0, 0.5 ** (1 - distance), 1 - 0.5 ** (1.0 + distance)).mean(axis=0)
    np.testing.assert_allclose(levels.mean(axis=0), mean, atol=5 * 0.5 / np.sqrt(BATCH))


def test_a_mixture_has_its_shares_and_keeps_chunks_together():
    mixture = only(independent=2, per_frame=1, propagated=3, staircase=2, in_flight=1)
    draw = jax.jit(lambda key: mixture.levels(key, 8000, 6, 3).noisy)
    levels = np.asarray(draw(jax.random.key(5)))
    assert levels.shape == (8000, 18)
    chunks = levels.reshape(8000, 6, 3)
    together = np.all(chunks == chunks[..., :1], axis=(1, 2))
    rising = np.all(np.diff(chunks[..., 0], axis=1) >= 0, axis=1)
    stairs = together & np.any((levels == 0) | (levels == 1), axis=1)
    for found, share in (
        (~together, 1 / 8),
        (stairs, 2 / 8),
        # Six independent levels rise by chance once in 720.
        (together & rising & ~stairs, 3 / 8 + 2 / 8 / 720),
    ):
        assert found.mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / 8000))


def test_levels_of_frames_are_independent():
    levels = np.asarray(only(per_frame=1).levels(jax.random.key(6), 4000, 4, 2).noisy)
    assert stats.kstest(levels.ravel(), "uniform").statistic < 1.95 / np.sqrt(levels.size)
    correlations = np.corrcoef(levels, rowvar=False)[np.triu_indices(8, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)


@pytest.mark.parametrize("way", ["clean_history", "independent", "per_frame"])
def test_a_shift_moves_independent_levels_towards_noise(way):
    """P(level <= x) = x / (s - (s - 1) x), the inverse of the shift: 1/4 up to 1/2 for s = 3."""
    levels = only(**{way: 1, "shift": 3.0}).levels(jax.random.key(7), 4000, 4, 2).noisy
    drawn = np.asarray(levels)[:, ::2].ravel()
    found = stats.kstest(drawn, lambda x: x / (3 - 2 * x))
    assert found.statistic < 1.95 / np.sqrt(drawn.size)
    assert np.mean(drawn <= 0.5) == pytest.approx(0.25, abs=0.02)


def test_a_shift_leaves_the_staircase_even():
    drawn = [
        np.asarray(only(staircase=1, shift=shift).levels(jax.random.key(8), 100, 25, 1).noisy)
        for shift in (1.0, 3.0)
    ]
    np.testing.assert_array_equal(*drawn)
    with pytest.raises(ValueError, match="shift"):
        only(independent=1, shift=0.0)


@pytest.mark.parametrize("shares", [{}, {"independent": 1.0, "staircase": -0.5}])
def test_shares_must_be_some(shares):
    with pytest.raises(ValueError, match="shares"):
        only(**shares)
