"""Scenes are cut where they change, and every face in them is followed."""

import cv2
import numpy as np
import pytest
from media.drawn import drawn_face

from xactor_jax.errors import InputError
from xactor_jax.media.faces import Face
from xactor_jax.preparation.detectors import Network, open_detector
from xactor_jax.preparation.settings import Faces, Settings, Shots
from xactor_jax.preparation.shots import CutFinder
from xactor_jax.preparation.tracks import (
    Shot,
    Track,
    faces_at_once,
    find_tracks,
    foreground,
    seen_together,
    stretches,
)


def cuts(pictures, settings: Shots) -> list[int]:
    finder = CutFinder(settings)
    return [i for i, picture in enumerate(pictures) if finder(picture)]


def scene(seed: int, count: int, moving: float = 0.0) -> list[np.ndarray]:
    """Blotches, shifted by so many pixels a frame, with the noise of a camera."""
    random = np.random.default_rng(seed)
    wide = np.kron(random.integers(60, 190, (6, 40, 3)), np.ones((20, 20, 1)))
    return [
        np.clip(
            wide[:, (s := round(moving * t)) : s + 160] + random.normal(0, 3, (120, 160, 3)), 0, 255
        ).astype(np.uint8)
        for t in range(count)
    ]


def test_cuts_are_found_and_nothing_else():
    pictures = scene(0, 30) + scene(1, 20, moving=2) + scene(2, 10)
    assert cuts(pictures, Shots()) == [30, 50]
    assert cuts(pictures, Shots(enabled=False)) == []


def test_cuts_of_large_pictures_are_the_same_though_few_pixels_are_looked_at():
    """A cloth of lines one pixel wide that pans by one pixel a frame is the worst to sample."""
    small = scene(0, 12) + scene(1, 12, moving=2) + scene(2, 6)
    large = [cv2.resize(one, (1366, 1024), interpolation=cv2.INTER_NEAREST) for one in small]
    for t, picture in enumerate(large):
        columns = np.arange(320)
        picture[:, :320] = np.where((columns + t) % 2, 160, 100)[:, None].astype(np.uint8)
    assert cuts(large, Shots()) == [12, 24]


def test_a_flash_of_light_that_stays_is_a_cut_but_a_fade_is_not():
    still = scene(0, 1)[0].astype(float)
    fade = [np.clip(still * (1 - 0.02 * t), 0, 255).astype(np.uint8) for t in range(40)]
    assert cuts(fade, Shots()) == []


def test_a_shot_long_enough_for_a_clip_keeps_a_picture_of_its_later_half():
    pictures = [np.full((40, 60, 3), 2 * t, np.uint8) for t in range(30)]
    pictures += scene(1, 10) + [np.full((40, 60, 3), 255 - 2 * t, np.uint8) for t in range(25)]
    first, short, last = find_tracks(pictures, Settings())
    middle = [
        cv2.imdecode(np.frombuffer(shot.still, np.uint8), cv2.IMREAD_GRAYSCALE).mean()
        for shot in (first, last)
    ]
    assert 28 <= middle[0] <= 60 and 205 <= middle[1] <= 231 and not short.still


def pair(count: int, apart: int = 220) -> list[np.ndarray]:
    return [
        np.hstack([drawn_face(200, apart, (100, 100 + t / 2), 80), drawn_face(200, 200, side=70)])
        for t in range(count)
    ]


def test_two_faces_are_two_tracks():
    (shot,) = find_tracks(pair(30), Settings())
    assert (shot.start, shot.end, shot.shape) == (0, 30, (200, 420))
    one, other = sorted(shot.tracks, key=lambda track: track.boxes[0][1])
    assert len(one.boxes) == len(other.boxes) == 30
    # The first moves by half a pixel a frame, the second stays.
    moved = [track.boxes[-1][1] - track.boxes[0][1] for track in (one, other)]
    assert abs(moved[0] - 14.5) < 4 and abs(moved[1]) < 4
    assert len(foreground(shot, Faces())) == 2
    assert foreground(shot, Faces(background=0.95)) == [one]


def test_a_face_that_jumps_begins_another_track():
    here, there = (drawn_face(200, 320, centre, 80) for centre in ((100, 80), (100, 240)))
    (shot,) = find_tracks([here] * 12 + [there] * 12, Settings(shots=Shots(enabled=False)))
    assert next((track.start, track.end) for track in shot.tracks) == (0, 12)
    assert shot.tracks[1].boxes[-1][1] - shot.tracks[0].boxes[0][1] > 150


def test_long_tracks_become_clips_cut_at_one_time():
    box = (1.0, 1.0, 10.0)
    whole, late = Track(0, [box] * 260), Track(30, [box] * 200)
    shot = Shot(0, 260, (9, 9), [whole, late])
    settings = Faces(longest_seconds=4)
    parts = [part for track in shot.tracks for part in stretches(track, shot, settings)]
    spans = [[(part.start, part.end) for part in group] for group in seen_together(parts)]
    assert spans == [[(0, 87), (30, 87)], [(87, 173), (87, 173)], [(173, 260), (173, 230)]]


def test_faces_are_counted_in_every_frame_of_their_shot():
    box = (1.0, 1.0, 10.0)
    tracks = [Track(start, [box] * frames) for start, frames in ((50, 8), (52, 3), (55, 2))]
    assert faces_at_once(tracks, Shot(50, 60, (9, 9), tracks)).tolist() == [
        *(1, 1, 2, 2, 2, 2, 2, 1, 0, 0)
    ]


def test_a_network_follows_in_a_crop():
    """The stand-in for a network finds the brightest spot, a third of the picture in size."""

    def brightest(picture: np.ndarray) -> list[Face]:
        y, x = np.unravel_index(picture[..., 0].argmax(), picture.shape[:2])
        return [Face(x + 0.5, y + 0.5, len(picture) / 3, 1.0)]

    picture = np.zeros((300, 400, 3), np.uint8)
    picture[120:124, 210:214] = 255
    found = Network(brightest).follow(picture, Face(200.0, 130.0, 40.0, 1.0))
    assert found is not None and found.side == 40
    # To the pixels of the crop, 0.6 of the picture's, and of the spot.
    assert abs(found.cx - 212) < 2.5 and abs(found.cy - 122) < 2.5


def test_a_missing_network_is_told(tmp_path):
    with pytest.raises(InputError, match=r"none\.tflite: no such file"):
        open_detector(str(tmp_path / "none.tflite"))


def test_a_file_that_is_no_network_is_told(tmp_path):
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "README.md"
    path.write_text("# Read me\n" * 99)
    with pytest.raises(InputError, match="no TFLite network; give MediaPipe's face_detection"):
        open_detector(str(path))
