"""What is drawn to measure the search for writing is where it is said to be."""

import sys

import numpy as np
import pytest

from experiments.captions import caption, laid_over, main, mark
from xactor_jax.errors import InputError

SIZE, FRAMES = 128, 60
VIEW = np.full((SIZE, SIZE, 3), 90, np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_captions_are_low_and_readable(seed):
    drawn = [laid_over(VIEW, d) for d in caption(FRAMES, SIZE, np.random.default_rng(seed))]
    changed = (drawn[0] != VIEW).any(axis=-1)
    rows = np.flatnonzero(changed.any(axis=1))
    assert rows.min() > 0.7 * SIZE and len(drawn) == FRAMES
    assert drawn[0].max() > 230  # white or yellow at full strength


def test_half_of_the_captions_change():
    random = np.random.default_rng(0)
    drawn = [caption(FRAMES + 20, SIZE, random) for _ in range(40)]
    share = np.mean([(one[0] != one[-1]).any() for one in drawn])
    assert 0.25 < share < 0.75


@pytest.mark.parametrize("seed", range(6))
def test_marks_keep_to_a_corner(seed):
    drawings = mark(FRAMES, SIZE, np.random.default_rng(seed))
    assert drawings[0] is drawings[-1]
    y, x = np.nonzero(drawings[0][..., 3])
    assert y.max() < SIZE / 3 or y.min() > 2 * SIZE / 3
    assert x.min() < 6 or x.max() > SIZE - 7


def test_a_command_without_folders_is_told(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["captions"])
    with pytest.raises(InputError, match="give --footage, --actors or --pictures"):
        main()
