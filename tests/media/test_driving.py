"""A driving video is seen by its clock and around its face, as clips to train on are."""

import numpy as np
import pytest
from media.drawn import drawn_face, grey_frames, talking_clip, write_media
from preparation.spoken import openness, voice

from xactor_jax.data.transforms import relative_box
from xactor_jax.errors import InputError
from xactor_jax.evaluation.scenes import driving_crops
from xactor_jax.media import driving
from xactor_jax.media.driving import find_driver
from xactor_jax.preparation.clips import prepare_file
from xactor_jax.preparation.settings import Settings, changed

VIEW, CROP = 192, 32


def test_driving_crops_are_those_of_training(tmp_path):
    talking = talking_clip(30, drift=0.5)
    write_media(tmp_path / "film.mkv", talking, audio=0.3 * voice(openness(30)))
    wanted = changed(Settings(size=VIEW), ["quality.blur=0"])
    (prepared,) = prepare_file(tmp_path / "film.mkv", "film.mkv", "anna", wanted)
    clip = prepared.clip
    driver = find_driver(tmp_path / "film.mkv")
    np.testing.assert_array_equal(driver.head_box, clip.head_box)
    np.testing.assert_array_equal(driver.box, relative_box(clip.head_box, clip.head_box[0]))
    seen, trained = list(driver.crops(VIEW, CROP)), driving_crops(clip, range(30), CROP)
    # All that lies between is the JPEG coding of prepared clips: .76 on average.
    assert np.abs(np.stack(seen).astype(int) - trained).mean() < 1.5
    apart = np.abs(trained[3].astype(int) - trained[9]).mean()
    assert apart > 3 * np.abs(seen[9].astype(int) - trained[9]).mean()


def test_a_head_that_moves_is_followed(tmp_path):
    frames = [drawn_face(240, 300, (100 + 0.5 * t, 110 + t), 80) for t in range(40)]
    driver = find_driver(write_media(tmp_path / "film.mkv", frames))
    # By half a pixel down and one to the right, in boxes of about 1.19 * 80 pixels; between frames
    # 8 and 32, since the ends of the track are flattened by its smoothing.
    moved = (driver.box[32] - driver.box[8]) * 1.19 * 80
    assert abs(moved[0] - 12) < 2 and abs(moved[1] - 24) < 2
    np.testing.assert_allclose(driver.box[0], [0, 0, 1])
    np.testing.assert_allclose(driver.box[:, 2], 1, atol=0.05)
    # The face stays in the middle of the crop: a pixel of 32 is 3 of the video's.
    crops = list(driver.crops(VIEW, CROP))
    assert np.abs(crops[8].astype(int) - crops[32]).mean() < 8
    still = np.abs(crops[8].astype(int) - np.roll(crops[32], 24 // 3, axis=1)).mean()
    assert still > 2 * np.abs(crops[8].astype(int) - crops[32]).mean()


@pytest.mark.parametrize("rate", [24, 25, 30, 50])
def test_any_frame_rate_becomes_25_by_time(tmp_path, rate):
    frames = [drawn_face(160, 160, (80, 70 + 20 * t / rate), 60) for t in range(rate)]
    film = write_media(tmp_path / "film.mkv", frames, [t / rate for t in range(rate)])
    told = []
    driver = find_driver(film, told.append)
    assert abs(len(driver) - 25) <= 1 and sum(told) == len(driver)
    assert sum(1 for _ in driver.crops(64, 16)) == len(driver)
    # Whatever the rate: 20 pixels a second, in boxes of about 1.19 * 60 pixels.
    moved = (driver.box[18, 1] - driver.box[8, 1]) * 1.19 * 60
    assert abs(moved - 20 * 10 / 25) < 2


def test_the_same_video_gives_the_same_driver(tmp_path):
    film = write_media(tmp_path / "film.mp4", talking_clip(8))
    one, two = find_driver(film), find_driver(film)
    np.testing.assert_array_equal(one.head_box, two.head_box)
    pairs = zip(one.crops(VIEW, CROP), two.crops(VIEW, CROP), strict=True)
    assert all((a == b).all() for a, b in pairs)


def test_a_face_that_is_lost_too_long_is_told(tmp_path):
    frames = talking_clip(20) + grey_frames([120] * 10, 200, 240)
    frames[20:] = [np.full_like(frames[0], (90, 120, 150))] * 10
    film = write_media(tmp_path / "film.mkv", frames)
    with pytest.raises(InputError, match=r"film\.mkv: no face in 10 of 30 frames; show"):
        find_driver(film)


def test_a_video_that_cannot_be_read_twice_is_told(tmp_path, monkeypatch):
    driver = find_driver(write_media(tmp_path / "film.mkv", talking_clip(6)))
    monkeypatch.setattr(driving, "read_video", lambda path: iter(talking_clip(4)))
    with pytest.raises(InputError, match=r"film\.mkv: the picture breaks off when read again"):
        list(driver.crops(VIEW, CROP))
