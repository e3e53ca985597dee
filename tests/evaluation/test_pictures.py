"""Scores of pictures against closed forms, and where the mouth is."""

import numpy as np
import pytest
from PIL import Image

from xactor_jax.evaluation.pictures import (
    mouth_mask,
    mouth_weights,
    peak_signal_to_noise,
    save_strip,
    structural_similarity,
    to_bytes,
    to_signed,
)

DRAW = np.random.default_rng(0)
TRUTH = DRAW.uniform(-0.5, 0.5, size=(2, 8, 8, 3)).astype(np.float32)


def test_psnr_of_a_known_error():
    # Values span 2, so the peak is 2: an error of 0.2 everywhere is 20 dB.
    assert peak_signal_to_noise(TRUTH + 0.2, TRUTH) == pytest.approx(20, abs=1e-3)
    error = np.array([0.2, 0.02], np.float32)[:, None, None, None]
    assert peak_signal_to_noise(TRUTH + error, TRUTH) == pytest.approx(30, abs=1e-2)  # mean of dB


def test_psnr_counts_only_what_the_mask_shows():
    mask, pictures = np.zeros((2, 8, 8), bool), TRUTH.copy()
    mask[:, 2:4, 3:6] = True
    pictures[mask] += 0.2
    pictures[~mask] -= 0.4
    assert peak_signal_to_noise(pictures, TRUTH, mask) == pytest.approx(20, abs=1e-3)
    assert peak_signal_to_noise(pictures, TRUTH, ~mask) == pytest.approx(13.979, abs=1e-3)


def test_psnr_is_of_what_can_be_shown_and_stays_finite():
    white = np.ones((1, 8, 8, 3), np.float32)
    assert peak_signal_to_noise(3 * white, white) == peak_signal_to_noise(white, white)
    assert np.isfinite(peak_signal_to_noise(white, white))


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.6), (0.45, 0.4, 0.5)])
def test_the_mouth_lies_below_the_middle_of_the_head(box):
    mask = np.asarray(mouth_mask(np.array(box, np.float32), 400))
    cy, cx, side = box
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    # Of a head box .44 of its height and .56 of its width; edges fall within a pixel.
    assert len(rows) == pytest.approx(400 * 0.44 * side, abs=1.5)
    assert len(columns) == pytest.approx(400 * 0.56 * side, abs=1.5)
    assert mask.sum() == len(rows) * len(columns)
    assert (rows.mean() + 0.5) / 400 == pytest.approx(cy + 0.24 * side, abs=1 / 400)
    assert (columns.mean() + 0.5) / 400 == pytest.approx(cx, abs=1 / 400)


def test_mouth_weights_have_mean_one_and_their_ratio():
    boxes = np.array([[[0.5, 0.5, 0.6], [0.4, 0.5, 0.4]]], np.float32)
    weights, mask = np.asarray(mouth_weights(boxes, 32, 5.0)), np.asarray(mouth_mask(boxes, 32))
    assert weights.shape == (1, 2, 32, 32)
    np.testing.assert_allclose(weights.mean(axis=(2, 3)), 1, rtol=1e-5)
    for one, where in zip(weights[0], mask[0], strict=True):
        np.testing.assert_allclose(one[where] / one[~where][0], 5, rtol=1e-5)


def test_similarity_is_that_of_every_gaussian_window():
    truth, picture = DRAW.uniform(-1, 1, size=(2, 13, 14, 3))
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis)[..., None] / axis.sum() ** 2
    found = []
    for y in range(3):
        for x in range(4):
            a, b = (image[y : y + 11, x : x + 11] for image in (picture, truth))
            mean_a, mean_b = (np.sum(window * part, axis=(0, 1)) for part in (a, b))
            spread_a = np.sum(window * (a - mean_a) ** 2, axis=(0, 1))
            spread_b = np.sum(window * (b - mean_b) ** 2, axis=(0, 1))
            together = np.sum(window * (a - mean_a) * (b - mean_b), axis=(0, 1))
            found.append(
                (2 * mean_a * mean_b + 0.0004)
                * (2 * together + 0.0036)
                / ((mean_a**2 + mean_b**2 + 0.0004) * (spread_a + spread_b + 0.0036))
            )
    got = structural_similarity(picture[None], truth[None])
    assert got == pytest.approx(np.mean(found), abs=1e-6)
    assert structural_similarity(truth[None], truth[None]) == pytest.approx(1, abs=1e-9)


def test_values_become_the_nearest_byte():
    values = np.array([-2, -1, -0.999, 0.0, 0.3, 1, 1.7], np.float32)
    np.testing.assert_array_equal(to_bytes(values), [0, 0, 0, 128, 166, 255, 255])
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_bytes(to_signed(every)), every)
    assert to_signed(every).dtype == np.float32
    assert (to_signed(every)[0], to_signed(every)[-1]) == (-1, 1)


def test_a_strip_shows_every_picture_of_every_example(tmp_path):
    reference = np.full((2, 4, 4, 3), 10, np.uint8)
    driving = np.full((2, 2, 16, 16, 3), 100, np.uint8)
    driving[:, 1] = 150
    output = np.full((2, 1, 8, 8, 3), 1.0, np.float32)
    save_strip(tmp_path / "strip.png", {"reference": reference, "driving": driving}, output)
    with Image.open(tmp_path / "strip.png") as strip:
        pixels = np.asarray(strip)
    assert pixels.shape == (2 * 8, 4 * 8, 3)
    assert pixels[12, 4::8, 0].tolist() == [10, 100, 150, 255]
