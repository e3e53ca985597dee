import numpy as np
import pytest

from xactor_jax.evaluation.pictures import structural_similarity

RNG = np.random.default_rng(0)


def test_equal_pictures_score_one_and_the_order_does_not_matter():
    one, other = RNG.uniform(-1, 1, (2, 3, 20, 24, 3))
    assert structural_similarity(one, one) == pytest.approx(1)
    assert structural_similarity(one, other) == pytest.approx(structural_similarity(other, one))
    assert structural_similarity(one, other) < 0.2


def test_flat_pictures_differ_by_light_alone():
    a, b = 0.4, -0.1
    light = (2 * a * b + 0.02**2) / (a**2 + b**2 + 0.02**2)
    found = structural_similarity(np.full((1, 16, 16, 3), a), np.full((1, 16, 16, 3), b))
    assert found == pytest.approx(light)


def test_a_picture_as_small_as_the_window_equals_the_formula():
    one, other = RNG.uniform(-1, 1, (2, 11, 11))
    place = np.arange(11) - 5
    window = np.exp(-(place**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2

    def mean(values):
        return np.sum(window * values)

    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    ma, mb = mean(one), mean(other)
    va, vb = mean((one - ma) ** 2), mean((other - mb) ** 2)
    cov = mean((one - ma) * (other - mb))
    expected = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))

    def coloured(picture):
        return np.repeat(picture[None, ..., None], 3, axis=-1)

    assert structural_similarity(coloured(one), coloured(other)) == pytest.approx(expected)
