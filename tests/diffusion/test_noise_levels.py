"""Levels of diffusion forcing: shares of the mixture, the stairs, and the masks, entry by entry."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats

from xactor_jax.diffusion.noise_levels import (
    Forcing,
    chunk_causal_mask,
    doubled_mask,
    fused_snr_weights,
    logit_normal,
    staircase,
)

BATCH, CHUNKS = 4000, 8


def within(share, expected, count):
    """A share of `count` draws is within five deviations: one failure in two million seeds."""
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / count)


@pytest.fixture(scope="module")
def levels():
    drawn = Forcing().levels(jax.random.key(0), BATCH, CHUNKS, 1)
    return jax.device_get(dataclasses.asdict(drawn))


def test_the_mixture_has_its_shares(levels):
    clean, noisy = levels["clean_history"], levels["noisy"]
    within(clean.mean(), 0.5, BATCH)
    # Of the others, only stairs reach a level of exactly 0 or 1.
    stairs = np.any((noisy == 0) | (noisy == 1), axis=1)
    assert not np.any(stairs & clean)
    within(stairs.mean(), 0.25, BATCH)


def test_levels_are_uniform_and_independent_unless_on_stairs(levels):
    noisy = levels["noisy"]
    free = noisy[~np.any((noisy == 0) | (noisy == 1), axis=1)]
    assert stats.kstest(free.ravel(), "uniform").statistic < 1.95 / np.sqrt(free.size)  # p = .001
    correlations = np.corrcoef(free, rowvar=False)[np.triu_indices(CHUNKS, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(len(free))


def test_the_clean_copy_is_labelled_and_sometimes_carries_the_noise(levels):
    label, noise = levels["history_label"], levels["history_noise"]
    label, noise = label[:, 0], noise[:, 0]
    within((~levels["history_seen"]).mean(), 0.05, BATCH)
    assert stats.kstest(label / 0.05, "uniform").statistic < 1.95 / np.sqrt(BATCH)
    assert np.all((noise == 0) | (noise == label))
    within((noise > 0).mean(), 0.5, BATCH)


def test_a_share_of_zero_is_never_drawn_and_shares_are_relative():
    only = Forcing(clean_history=0, staircase=3.0, independent=0).levels(
        jax.random.key(1), 200, CHUNKS, 1
    )
    assert Forcing(clean_history=0).dealt(8)[0] == 0
    assert not np.any(only.clean_history)
    assert np.all(np.any((only.noisy == 0) | (only.noisy == 1), axis=1))


@pytest.mark.parametrize(
    ("share", "batch", "dealt"),
    [(0.5, 8, (1, 2)), (0.75, 8, (3, 4)), (1.0, 3, (1, 1)), (0.5, 3, (1, 1)), (0.3, 8, (1, 1))],
)
def test_clean_history_is_dealt_out_evenly_where_it_can_be(share, batch, dealt):
    mixture = Forcing(clean_history=share, independent=1 - share, staircase=0.0)
    assert mixture.dealt(batch) == dealt
    draw = jax.jit(jax.vmap(lambda key: mixture.levels(key, batch, 2, 1).clean_history))
    clean = np.asarray(draw(jax.random.split(jax.random.key(1), 2000)))
    first, group = dealt
    if first / group == share:
        expected = np.arange(batch) % group < first
        np.testing.assert_array_equal(clean, np.broadcast_to(expected, clean.shape))
    else:
        within(clean.mean(), share, clean.size)
        assert np.all(clean.any(axis=0) & ~clean.all(axis=0))


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_stairs_rise_and_have_few_chunks_in_flight(in_flight):
    levels = np.asarray(staircase(jax.random.key(2), BATCH, CHUNKS, in_flight))
    rises = np.diff(levels, axis=1)
    assert np.all(rises >= 0)
    flying = (levels > 0) & (levels < 1)
    assert flying.sum(axis=1).max() == in_flight
    inside = flying[:, 1:] & flying[:, :-1]
    np.testing.assert_allclose(rises[inside], 1 / in_flight, atol=1e-5)
    for chunk in range(CHUNKS):  # every chunk meets every level
        met = levels[flying[:, chunk], chunk]
        assert stats.kstest(met, "uniform").statistic < 1.95 / np.sqrt(len(met))


def test_fused_weights_are_those_of_their_equation():
    """Against plain loops, and two values of a chunk at 0.9 with g = 0.96."""
    draw = np.random.default_rng(0)
    levels, history = draw.uniform(size=(2, 3, 6))
    found = np.asarray(fused_snr_weights(levels, history, 10))
    clipped = lambda level: min(((1 - level) / level) ** 2, 5) / 5  # noqa: E731
    kept, expected = 0.96**10, np.zeros((3, 6))
    for row in range(3):
        fused = 0.0
        for j in range(6):
            own = clipped(levels[row, j])
            expected[row, j] = levels[row, j] ** 2 * 5 * (1 - (1 - kept * fused) * (1 - own))
            known = clipped(history[row, j])
            fused = known if j == 0 else kept * fused + (1 - kept) * known
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-4)
    assert found.mean() == pytest.approx(1)
    clean, noisy = (
        np.asarray(fused_snr_weights(np.full((1, 2), 0.9), np.full((1, 2), level), 1))[0]
        for level in (0.0, 1.0)
    )
    # The first chunk has no past; the second a clean one, or one that tells nothing.
    assert clean[1] / clean[0] == pytest.approx(3.89 / 0.0100, rel=0.01)
    assert noisy[1] / noisy[0] == pytest.approx(1)


def test_logit_normal_levels_have_their_quantiles():
    drawn = np.asarray(logit_normal(jax.random.key(3), (BATCH,), 1.5, 1.2))
    quantiles = 1 / (1 + np.exp(-(1.5 + 1.2 * stats.norm.ppf([0.1, 0.5, 0.9]))))
    # The density at the lowest of these quantiles is about 0.6: a deviation of 0.008.
    np.testing.assert_allclose(np.quantile(drawn, [0.1, 0.5, 0.9]), quantiles, atol=0.03)


def test_chunks_see_themselves_and_those_before():
    mask = np.asarray(chunk_causal_mask(7, 3))  # the last chunk is short
    for query in range(7):
        for key in range(7):
            assert mask[query, key] == (key // 3 <= query // 3)


@pytest.mark.parametrize(
    ("clean_history", "history_seen"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_the_doubled_sequence_shows_clean_chunks_before_the_noisy_one(clean_history, history_seen):
    frames, chunk = 6, 2
    kinds = np.array([not clean_history, clean_history])
    mask = np.asarray(doubled_mask(frames, chunk, kinds, np.array([True, history_seen])))[1]
    for query in range(2 * frames):
        for key in range(2 * frames):
            own, other = query % frames // chunk, key % frames // chunk
            if query < frames:
                seen = key < frames and other <= own
            elif clean_history:
                seen = other < own and history_seen if key < frames else other == own
            else:
                seen = key >= frames and other <= own
            assert mask[query, key] == seen, (query, key)
