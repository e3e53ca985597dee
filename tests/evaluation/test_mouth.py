import numpy as np
import pytest

from xactor_jax.errors import InputError
from xactor_jax.evaluation import mouth


def points_with_gap(gap, height=100.0):
    points = np.zeros((468, 2), np.float32)
    points[13], points[14] = (50, 60), (50 + gap, 60)
    points[10], points[152] = (50, 0), (50, height)
    return points


def test_the_opening_is_the_gap_over_the_height_of_the_face():
    assert mouth.mouth_opening(points_with_gap(8)) == pytest.approx(0.08)


def test_small_pictures_are_enlarged_with_their_boxes(tmp_path, monkeypatch):
    seen = []

    class Mesh:
        def __init__(self, path):
            pass

        def __call__(self, image, face):
            seen.append((image.shape, face.box))
            return points_with_gap(len(seen)), 1.0

    monkeypatch.setattr(mouth, "FaceMesh", Mesh)
    (tmp_path / mouth.FACE_MESH_FILE).touch()
    pictures = np.zeros((2, 64, 64, 3), np.uint8)
    boxes = np.float32([[0.5, 0.25, 0.5], [0.5, 0.5, 0.25]])
    openings = mouth.mouth_meter(tmp_path)(pictures, boxes)
    np.testing.assert_allclose(openings, [0.01, 0.02], rtol=1e-6)
    assert seen == [((256, 256, 3), (128, 64, 128)), ((256, 256, 3), (128, 128, 64))]


def test_without_the_model_it_says_where_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"face_landmark\.tflite: .*pip download mediapipe"):
        mouth.mouth_meter(tmp_path)
