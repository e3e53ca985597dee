"""What can be heard is guessed right, what cannot is not, and held emotions are not asked for."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.announcements import accuracies, announcements, moments

HELD, ANNOUNCED, HOPS, BANDS = 40, 70, 2, 6


def heard(count, audible, seed):
    """Scripts of one announcement, whose sound has its emotion or another one, and is then held."""
    random, found = np.random.default_rng(seed), []
    for number in range(count):
        emotion = 1 + number % 4
        voiced = np.arange(ANNOUNCED + HELD) < ANNOUNCED
        mel = random.normal(size=(len(voiced), HOPS, BANDS)).astype(np.float32)
        mel[voiced, :, emotion if audible else random.integers(1, 5)] += 3
        track = np.full(len(voiced), emotion, np.int8)
        found.append((SimpleNamespace(voiced=voiced, emotion=track), mel))
    return found


def test_only_announced_frames_are_asked_for():
    rows, emotions = moments(heard(4, audible=True, seed=0), 0.4)
    assert len(rows) == len(emotions) == 4 * ANNOUNCED / 5
    rows, emotions = announcements(heard(4, audible=True, seed=0))
    assert len(rows) == 4 and list(emotions) == [1, 2, 3, 4]


@pytest.mark.parametrize("audible", [True, False])
def test_what_can_be_heard_is_guessed(monkeypatch, audible):
    monkeypatch.setattr("experiments.announcements.AROUND", (0.4,))
    found, table = accuracies(heard(40, audible, seed=1), heard(40, audible, seed=2))
    assert list(found) == ["0.4 s", "whole announcement"]
    # 40 guesses at chance have a deviation of 0.07.
    assert min(found.values()) > 0.95 if audible else max(found.values()) < 0.5
    np.testing.assert_allclose(table.sum(axis=1), 1)
