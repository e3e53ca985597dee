"""Each measure of the picture answers to the defect it is named after."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from media.drawn import drawn_face

from xactor_jax.media.image import read_image
from xactor_jax.preparation import quality
from xactor_jax.preparation.quality import ViewMeter
from xactor_jax.preparation.settings import Quality

# A drawn face of side 70 in the middle of a view of 160: BlazeFace would draw its box so.
HEAD = np.array([0.5, 0.5, 0.52], np.float32)
TURNED = Path(__file__).with_name("turned.jpg")  # see test_pose.py


def faces(count: int = 12) -> list[np.ndarray]:
    return [
        drawn_face(160, 160, (69, 80), 70, mouth=0.5 + 0.5 * np.sin(1.3 * t)) for t in range(count)
    ]


def measured(views) -> quality.PictureMeasures:
    meter = ViewMeter()
    for view in views:
        meter.add(view, HEAD)
    return meter.measures(face_pixels=83.0, turned=0.0, second_face=0.0)


def covered(view: np.ndarray) -> np.ndarray:
    view = view.copy()
    cv2.ellipse(view, (80, 82), (50, 44), 20, 0, 360, (120, 95, 80), -1)
    cv2.line(view, (60, 80), (110, 110), (230, 200, 190), 7)
    return view


def marked(view: np.ndarray) -> np.ndarray:
    view = view.copy()
    cv2.putText(view, "STOCK VIDEO", (6, 152), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    return view


def test_a_good_clip_passes():
    assert quality.refusal(measured(faces()), Quality()) == ""


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("blur", lambda view: cv2.GaussianBlur(view, (0, 0), 5), "blurred"),
        ("dark", lambda view: view // 16, "dark"),
        ("contrast", lambda view: (120 + view // 20).astype(np.uint8), "flat"),
        ("overlay", marked, "writing or a mark"),
    ],
)
def test_defects_are_named(name, spoil, reason):
    result = measured([spoil(view) for view in faces()])
    # Of several defects the first is told; each measure has to answer by itself.
    alone = Quality(**{field: _off(field) for field in _FIELDS if field != name})
    assert quality.refusal(result, alone).startswith(reason)
    assert quality.refusal(measured(faces()), alone) == ""


_FIELDS = Quality.__dataclass_fields__


def _off(field: str) -> float:
    if field == "yaw":
        return 180.0
    return 1.0 if field in ("occluded", "turned", "overlay", "second_face") else 0.0


def test_a_photograph_is_static():
    photograph = measured([faces(1)[0]] * 12)
    assert quality.refusal(photograph, Quality()).startswith("the face does not move")


def test_a_hand_before_the_face_is_counted():
    views = faces(20)
    views[3:9] = [covered(view) for view in views[3:9]]
    result = measured(views)
    assert abs(result.occluded - 6 / 20) < 1e-9
    assert quality.refusal(result, Quality()).startswith("something covers the face in 30%")


def test_a_face_that_moves_in_its_box_is_not_covered():
    """Boxes of a detector wander by a tenth of a face, and lively faces with them."""
    meter = ViewMeter()
    for t, view in enumerate(faces(20)):
        wander = 0.05 * np.array([np.sin(t), np.cos(1.7 * t), 0], np.float32)
        meter.add(view, HEAD + wander)
    assert meter.measures(83.0, 0.0, 0.0).occluded == 0


def test_small_faces_turned_ones_and_company_are_refused():
    meter = ViewMeter()
    for view in faces():
        meter.add(view, HEAD)
    assert "20 pixels small" in quality.refusal(meter.measures(20.0, 0.0, 0.0), Quality())
    assert "turned away in 30%" in quality.refusal(meter.measures(83.0, 0.3, 0.0), Quality())
    assert "another face" in quality.refusal(meter.measures(83.0, 0.0, 0.8), Quality())


def test_a_head_that_is_turned_to_a_side_is_refused():
    strip = read_image(TURNED)
    for place, refused in ((0, True), (3, False), (7, True)):
        view, meter = strip[:, 96 * place : 96 * place + 96], ViewMeter()
        for _ in range(12):
            meter.add(np.ascontiguousarray(view), np.array([0.5, 0.5, 0.5], np.float32))
        reason = quality.refusal(meter.measures(83.0, 0.0, 0.0), Quality(static=0, overlay=1))
        assert reason.startswith("the head is turned") == refused, reason


def test_writing_that_moves_on_is_none():
    """What lies behind a walking person may have edges, but not for long in one place."""
    moved = [np.roll(marked(view), 7 * t, axis=1) for t, view in enumerate(faces(30))]
    behind = [view.copy() for view in faces(30)]
    for view, other in zip(behind, moved, strict=True):
        view[135:] = other[135:]
    plain, lasting = measured(faces()).overlay, measured([marked(v) for v in faces()]).overlay
    assert measured(behind).overlay < plain + 0.1 < Quality().overlay < lasting


def test_captions_below_the_chin_are_found_though_they_change():
    words = ["what was said", "and what was not", "in every second"]
    views = []
    for t, view in enumerate(faces(70)):
        font, white = cv2.FONT_HERSHEY_DUPLEX, (255, 255, 255)
        views.append(cv2.putText(view, words[t // 24], (16, 142), font, 0.45, white, 1))
    head = HEAD[0] + 0.5 * HEAD[2]  # the lower edge of the head box
    assert abs(head - 142 / 160) < 0.15
    assert measured(views).overlay > Quality().overlay > measured(faces(70)).overlay + 0.1
