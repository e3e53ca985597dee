"""Faces are found where they were drawn, and the squares around them are cut exactly."""

import cv2
import numpy as np
import pytest
from media.drawn import drawn_face

from xactor_jax.errors import InputError
from xactor_jax.media import faces
from xactor_jax.media.faces import Face


@pytest.mark.parametrize("side", [50, 90, 150])
def test_the_box_follows_the_face(side):
    near, far = (
        faces.single_face(drawn_face(360, 400, centre, side), "face")
        for centre in ((150, 160), (190, 230))
    )
    # The box is BlazeFace's; its place on the cartoon is fixed to a few hundredths of the face.
    assert abs(near.side / side - 1.19) < 0.08
    assert abs(near.cx - 160) < 0.05 * side
    assert abs(near.cy - 150 - 0.155 * side) < 0.06 * side
    assert abs(far.cx - near.cx - 70) < 0.06 * side
    assert abs(far.cy - near.cy - 40) < 0.06 * side


def test_a_tilted_face_is_found():
    image = drawn_face(300, 300, (150, 150), 110)
    turn = cv2.getRotationMatrix2D((150, 150), 35, 1)
    tilted = cv2.warpAffine(image, turn, (300, 300), borderMode=cv2.BORDER_REPLICATE)
    face = faces.single_face(tilted, "tilted")
    assert np.hypot(face.cx - 150, face.cy - 150) < 0.35 * 110


def test_one_face_is_asked_for():
    one = drawn_face()
    with pytest.raises(InputError, match=r"^two\.png: 2 faces found"):
        faces.single_face(np.hstack([one, one]), "two.png")
    with pytest.raises(InputError, match=r"^wall\.png: no face found"):
        faces.single_face(np.full((240, 240, 3), 128, np.uint8), "wall.png")


def test_noise_is_no_face():
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    assert faces.detect_faces(cv2.GaussianBlur(noise, (0, 0), 6)) == []


def test_a_moving_face_is_followed():
    last = faces.single_face(drawn_face(), "first")
    first = last
    for step in range(1, 9):
        image = drawn_face(centre=(120 + 2 * step, 120 - 3 * step), side=100 + step)
        last = faces.follow_face(image, last)
        assert last is not None
    assert abs(last.cx - first.cx + 24) < 5 and abs(last.cy - first.cy - 16) < 5
    assert 1.0 < last.side / first.side < 1.16
    assert faces.follow_face(np.full((240, 240, 3), 99, np.uint8), last) is None


def test_the_track_is_smooth_and_fills_gaps():
    boxes: list = [(10.0 + t, 20.0 - t, 30.0) for t in range(60)]
    boxes[30] = boxes[31] = None
    track = faces.head_track(boxes)
    assert track.shape == (60, 3)
    # A Gaussian leaves a straight line as it is, away from the ends (4 sigma).
    inside = slice(20, 40)
    np.testing.assert_allclose(track[inside, 0], 10 + np.arange(60)[inside], atol=1e-3)
    np.testing.assert_allclose(track[:, 2], 30, atol=1e-9)
    noisy = [(50 + e, 50.0, 40.0) for e in np.random.default_rng(1).normal(size=500)]
    # White noise through a Gaussian of sigma s keeps 1 / (2 sqrt(pi) s) of its variance.
    expected = np.sqrt(1 / (2 * np.sqrt(np.pi) * 5))
    assert abs(faces.head_track(noisy)[:, 0].std() / expected - 1) < 0.25


def test_a_face_missing_in_a_fifth_of_the_frames_is_refused():
    boxes: list = [(1.0, 1.0, 1.0)] * 10
    assert len(faces.head_track([None, *boxes[1:]])) == 10
    with pytest.raises(InputError, match="no face in 2 of 10 frames"):
        faces.head_track([None, None, *boxes[2:]])
    with pytest.raises(InputError, match="no face in 0 of 0 frames"):
        faces.head_track([])


def test_the_view_is_twice_the_face_and_stays_inside():
    boxes = np.array([[100, 200, 50], [104, 202, 52], [60, 190, 48]], float)
    assert faces.view_window(boxes, 300, 400) == (100, 200, 100)
    assert faces.view_window(boxes - [80, 0, 0], 300, 400) == (50, 200, 100)
    # Too large for the picture's height: all of the height is in view, with as little else.
    assert faces.view_window(boxes * [1, 1, 4], 300, 500) == (100, 200, 400)
    assert faces.view_window(boxes * [3, 1, 3], 290, 500) == (150, 200, 300)
    assert faces.view_window(boxes * [0, 1, 3], 290, 500) == (140, 200, 300)
    np.testing.assert_allclose(faces.to_view(boxes, (100, 200, 100))[0], [0.5, 0.5, 0.5], rtol=1e-6)


def test_cutting_is_exact():
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (48, 48, 3)).astype(np.uint8)
    np.testing.assert_array_equal(faces.cut_view(image, (24, 24, 48), 48), image)
    np.testing.assert_array_equal(faces.cut_view(image, (20, 16, 24), 24), image[8:32, 4:28])
    means = image.reshape(16, 3, 16, 3, 3).mean(axis=(1, 3))
    assert np.abs(faces.cut_view(image, (24, 24, 48), 16) - means).max() <= 0.51
    ramp = np.broadcast_to(2 * np.arange(100, dtype=np.uint8)[None, :, None], (100, 100, 3))
    moved = faces.cut_view(np.ascontiguousarray(ramp), (50, 50.5, 40), 40).astype(float)
    # A ramp of 2 a pixel cut half a pixel further right is 1 brighter.
    np.testing.assert_allclose(moved[0, :, 0], 2 * np.arange(30, 70) + 1, atol=0.51)
    outside = faces.cut_view(image, (24, 0, 48), 48)
    np.testing.assert_array_equal(outside[:, :24], np.repeat(image[:, :1], 24, axis=1))


@pytest.mark.parametrize("side", [70.0, 148.0])  # by 1.75 and by 3.7, at fractions of a pixel
def test_reduced_views_are_means_of_what_they_cover(side):
    wave = 2 * np.pi / 24
    pixels = 128 + 100 * np.sin(wave * (np.arange(200) + 0.5))
    image = np.broadcast_to(np.round(pixels).astype(np.uint8), (200, 200))
    view = faces.cut_view(np.ascontiguousarray(image), (100, 100.3, side), 40)
    edges = 100.3 - side / 2 + side / 40 * np.arange(41)
    means = 128 - 100 * np.diff(np.cos(wave * edges)) / (wave * side / 40)
    # Places are kept to a 32nd of a pixel (0.4 at the steepest), filters change such a wave by 1 %,
    # and there are two roundings. Half a pixel aside would be 13, samples without means 4 at 3.7.
    assert np.abs(view[20] - means).max() <= 2.2


def test_models_that_are_not_there_are_named(tmp_path):
    for network in (faces.BlazeFace, faces.FaceMesh):
        with pytest.raises(InputError, match="no such file"):
            network(tmp_path / "model.tflite")
    assert Face(3, 2, 1, 0.5).box == (2, 3, 1)
