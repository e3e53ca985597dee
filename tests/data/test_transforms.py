"""Crops land where the geometry says, on pictures whose colours are their coordinates."""

import dataclasses

import numpy as np
import pytest

from xactor_jax.data.transforms import (
    PLAIN,
    Augmentation,
    Colour,
    box_in_picture,
    driving_picture,
    picture_of,
    picture_window,
    relative_box,
)

EXTENT = 120
# Red is twice the column, green twice the row, so that a crop tells where each pixel came from.
INDEX = 2 * np.arange(EXTENT, dtype=np.uint8)
VIEW = np.stack(np.broadcast_arrays(INDEX[None, :], INDEX[:, None], np.uint8(7)), axis=-1)
HEAD, SIDE = (0.45, 0.55, 0.3), 0.4


def rng():
    return np.random.default_rng(0)


def places(crop):
    """Where in the view (y, x) each pixel's centre lies, in pixels from the view's corner."""
    return crop[..., [1, 0]].astype(np.float64) / 2 + 0.5


def grid(size):
    """Centres of a crop's pixels (y, x), from its middle, in crop sides."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)


def fitted(crop):
    """Middle and matrix of the map from crop sides to the view's pixels."""
    design = np.concatenate([np.ones((crop.shape[0] ** 2, 1)), grid(len(crop)).reshape(-1, 2)], 1)
    solution = np.linalg.lstsq(design, places(crop).reshape(-1, 2), rcond=None)[0]
    return solution[0], solution[1:].T


@pytest.mark.parametrize("size", [16, 24, 64])
def test_a_plain_driving_picture_is_the_square_around_the_head(size):
    crop = driving_picture(VIEW, np.array(HEAD), SIDE, size, PLAIN, rng())
    assert crop.shape == (size, size, 3)
    expected = EXTENT * (np.array(HEAD[:2]) + 1.1 * SIDE * grid(size))
    # Bytes of two levels a pixel, rounded twice, halves always up.
    np.testing.assert_allclose(places(crop), expected, atol=0.6)
    middle, matrix = fitted(crop)
    np.testing.assert_allclose(middle, EXTENT * np.array(HEAD[:2]), atol=0.15)
    np.testing.assert_allclose(matrix, EXTENT * 1.1 * SIDE * np.eye(2), atol=0.5)
    assert np.all(np.abs(crop[..., 2].astype(int) - 7) <= 1)


@pytest.mark.parametrize(
    ("head", "centre"), [((0.1, 0.5), (0.22, 0.5)), ((0.6, 0.95), (0.6, 0.78))]
)
def test_a_crop_near_the_edge_is_moved_inside(head, centre):
    middle, _ = fitted(driving_picture(VIEW, np.array([*head, 0.3]), SIDE, 32, PLAIN, rng()))
    np.testing.assert_allclose(middle, EXTENT * np.array(centre), atol=0.15)


@pytest.mark.parametrize("seed", range(4))
def test_a_moved_crop_is_moved_as_it_was_drawn(seed):
    augmentation = Augmentation(scale=0.2, shift=0.1, rotation=30)
    dy, dx, scale, rotation = augmentation.place(np.random.default_rng(seed))
    crop = driving_picture(
        VIEW, np.array(HEAD), SIDE, 32, augmentation, np.random.default_rng(seed)
    )
    middle, matrix = fitted(crop)
    reach = EXTENT * 1.1 * SIDE * scale
    np.testing.assert_allclose(
        middle, EXTENT * np.array(HEAD[:2]) + reach * np.array([dy, dx]), atol=0.15
    )
    sine, cosine = np.sin(np.deg2rad(rotation)), np.cos(np.deg2rad(rotation))
    turn = np.array([[cosine, sine], [-sine, cosine]])  # rows and columns, y first
    np.testing.assert_allclose(matrix, reach * turn, atol=0.6)


def test_drawn_changes_stay_within_their_limits():
    augmentation, draw = Augmentation(scale=0.2, shift=0.1, rotation=30), rng()
    drawn = np.array([augmentation.place(draw) for _ in range(500)])
    limits = np.array([[-0.1, -0.1, 0.8, -30], [0.1, 0.1, 1.2, 30]])
    assert np.all((drawn >= limits[0]) & (drawn <= limits[1]))
    width = limits[1] - limits[0]
    assert np.all(np.ptp(drawn, axis=0) > 0.95 * width)
    assert PLAIN.place(draw) == (0, 0, 1, 0)


def test_plain_changes_no_colour():
    picture = rng().integers(0, 256, (30, 30, 3)).astype(np.uint8)
    np.testing.assert_array_equal(PLAIN.colour(rng())(picture), picture)


def test_a_change_of_colour_scales_the_contrast_and_shifts_the_light():
    picture = rng().integers(100, 140, (30, 30, 3)).astype(np.uint8)
    gain = np.array([0.5, 1.0, 1.5], np.float32)
    changed = Colour(gain, 0.0, gray=False)(picture)
    deviations = changed.std(axis=(0, 1)) / picture.std(axis=(0, 1))
    np.testing.assert_allclose(deviations, gain, rtol=0.03)  # bytes of deviation 12
    brighter = Colour(np.ones(3, np.float32), 20.0, gray=False)(picture)
    np.testing.assert_allclose(brighter.astype(int) - picture, 20, atol=1)
    gray = Colour(np.ones(3, np.float32), 0.0, gray=True)(picture)
    light = picture @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    np.testing.assert_allclose(gray, light[..., None].repeat(3, -1), atol=1)
    assert np.all(Colour(np.ones(3, np.float32), 300.0, gray=False)(picture) == 255)


def test_noise_is_at_most_as_strong_as_asked():
    flat = np.full((EXTENT, EXTENT, 3), 128, np.uint8)
    augmentation = dataclasses.replace(PLAIN, noise=6.0)
    crops = [
        driving_picture(flat, np.array(HEAD), SIDE, 32, augmentation, np.random.default_rng(seed))
        for seed in range(20)
    ]
    strengths = np.array([crop.std() for crop in crops])
    # 3072 draws: the deviation is known to 1.3 %, bytes add 0.3.
    assert 4 < strengths.max() < 6.5
    assert strengths.min() < 2
    np.testing.assert_allclose([crop.mean() for crop in crops], 128, atol=1)


@pytest.mark.parametrize("size", [30, 90])
@pytest.mark.parametrize(
    ("heads", "scale", "window"),
    [
        ([(0.5, 0.5, 0.5)], 1.6, (0.5, 0.5, 0.8)),
        ([(0.45, 0.6, 0.4), (0.4, 0.55, 0.4), (0.9, 0.5, 0.1)], 1.5, (0.45, 0.55, 0.6)),
        ([(0.3, 0.8, 0.5)], 1.6, (0.4, 0.6, 0.8)),  # moved inside
        ([(0.4, 0.5, 0.7)], 2.0, (0.5, 0.5, 1.0)),  # all there is
    ],
)
def test_the_picture_is_the_fixed_square_around_the_median_head(heads, scale, window, size):
    heads = np.array(heads, np.float32)
    found = picture_window(heads, scale)
    np.testing.assert_allclose(found, window, atol=1e-6)
    picture = picture_of(VIEW, found, size)
    expected = EXTENT * (np.array(window[:2]) + window[2] * grid(size))
    inside = slice(2, -2)  # the cubic kernel repeats the view's edge
    np.testing.assert_allclose(places(picture)[inside, inside], expected[inside, inside], atol=0.6)


def test_a_box_of_the_view_frames_the_same_head_in_the_picture():
    view = np.zeros((EXTENT, EXTENT, 3), np.uint8)
    view[36:72, 48:84] = 255  # (0.45, 0.55), side 0.3
    window = picture_window(np.array([[0.5, 0.5, 0.5]]), 1.5)
    cy, cx, side = 90 * box_in_picture(np.array([[0.45, 0.55, 0.3]], np.float32), window)[0]
    rows, columns = (
        np.flatnonzero((picture_of(view, window, 90)[..., 0] > 127).any(axis=axis)) + 0.5
        for axis in (1, 0)
    )
    for found, centre in ((rows, cy), (columns, cx)):
        assert found.mean() == pytest.approx(centre, abs=0.51)
        assert len(found) == pytest.approx(side, abs=1.01)


def test_boxes_in_pictures_have_closed_forms():
    heads = np.array([[0.5, 0.5, 0.5], [0.4, 0.7, 0.25]], np.float32)
    np.testing.assert_allclose(box_in_picture(heads, (0.5, 0.5, 1.0)), heads, atol=1e-7)
    half = box_in_picture(heads, (0.5, 0.5, 0.5))
    np.testing.assert_allclose(half, [[0.5, 0.5, 1.0], [0.3, 0.9, 0.5]], atol=1e-6)
    assert half.dtype == np.float32


def test_relative_boxes_count_in_sides_of_the_reference():
    reference = np.array([0.5, 0.4, 0.2], np.float32)
    heads = np.array([[0.5, 0.4, 0.2], [0.6, 0.4, 0.2], [0.5, 0.35, 0.3]], np.float32)
    expected = [[0, 0, 1], [0.5, 0, 1], [0, -0.25, 1.5]]
    got = relative_box(heads, reference)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    # The same whether measured in the view or in any picture of it.
    window = (0.45, 0.55, 0.7)
    moved = box_in_picture(np.concatenate([heads, reference[None]]), window)
    np.testing.assert_allclose(relative_box(moved[:3], moved[3]), got, atol=1e-5)
