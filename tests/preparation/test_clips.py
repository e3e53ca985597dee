"""A file becomes clips whose sound is in step and whose picture is one speaker's."""

import gc

import cv2
import numpy as np
import pytest
from media.drawn import drawn_face, talking_clip, write_media
from preparation.spoken import openness, voice

from xactor_jax.data.shards import decode_frames
from xactor_jax.preparation import clips
from xactor_jax.preparation.clips import Prepared, Refused, prepare_file
from xactor_jax.preparation.settings import Settings, changed
from xactor_jax.preparation.sound import loudness

SIZE = 64
OPEN = ("quality.blur=0", "quality.static=0", "sound.music=1")  # drawn faces pass


def results(path, *changes, static: float = 0.1) -> list[Prepared | Refused]:
    settings = changed(Settings(size=SIZE), [*changes, *OPEN, f"quality.static={static}"])
    return list(prepare_file(path, path.name, "anna", settings))


def opening_of(clip, opening: np.ndarray) -> float:
    """How the darkness of the view's lower half goes with an opening."""
    return np.corrcoef(-lower_half(clip), opening)[0, 1]


def lower_half(clip) -> np.ndarray:
    """Its brightness in every frame."""
    return decode_frames(clip, range(len(clip)))[:, SIZE // 2 :].mean(axis=(1, 2, 3))


def talking(opening: np.ndarray, x: float = 100) -> list[np.ndarray]:
    """A face whose mouth is open so far in each frame; equal pictures are drawn once."""
    drawn: dict[int, np.ndarray] = {}
    for level in range(12):
        drawn[level] = drawn_face(170, 200, (85, x), 80, mouth=1.6 * level / 11)
    return [drawn[round(11 * gap)] for gap in opening]


FRAMES = 135


@pytest.mark.parametrize("late", [6, -5])
def test_an_offset_is_mended(tmp_path, late):
    opening = openness(FRAMES, seed=3)
    sound, shift = voice(opening), abs(late) * 640
    sound = np.r_[np.zeros(shift, np.float32), sound] if late > 0 else sound[shift:]
    path = write_media(tmp_path / "film.mkv", talking(opening), audio=0.3 * sound)
    (result,) = results(path, "sync.shortest_seconds=4")
    assert isinstance(result, Prepared), result
    assert result.offset_frames == late
    # The start lacks its sound where that was early, and the file's sound ends 5 frames early.
    clip, first = result.clip, round(result.start_seconds * 25)
    assert (first, len(clip)) == ((0, FRAMES) if late > 0 else (5, FRAMES - 10))
    assert abs(result.end_seconds - result.start_seconds - len(clip) / 25) < 1e-9
    # Loud where the mouth is open and quiet where it is not, at one level whatever it was.
    loud = np.sqrt(np.mean(clip.audio.reshape(-1, 640).astype(float) ** 2, axis=1))
    assert np.corrcoef(loud, opening[first : first + len(clip)])[0, 1] > 0.95
    assert abs(loudness(clip.audio / 32768) + 23) < 1


def test_sound_of_somebody_else_is_refused(tmp_path):
    path = write_media(
        tmp_path / "narrated.mkv", talking(np.zeros(FRAMES)), audio=voice(openness(FRAMES, 4))
    )
    # In half the time that a clip needs, chance goes further.
    (result,) = results(path, "sync.shortest_seconds=4", "sync.peak=0.5", static=0.0)
    assert isinstance(result, Refused)
    assert result.reason.startswith("mouth and sound do not clearly go together")
    assert result.thumbnail and result.checks["face_pixels"] > 50


def test_a_stretch_between_two_frames_is_cut_at_one_for_picture_and_sound(tmp_path):
    """The mouth opens once, when a tone begins: at 1 s of the film."""
    opening, sound = np.zeros(60), np.zeros(60 * 640, np.float32)
    opening[25:] = 1
    sound[16_000:] = 0.3 * np.sin(np.arange(len(sound) - 16_000) / 5)
    path = write_media(tmp_path / "film.mkv", talking(opening), audio=sound)
    settings = changed(Settings(size=SIZE), [*OPEN, "quality.static=0", "sound.normalise=False"])
    (result,) = prepare_file(path, "film", "anna", settings, (0.82, 2.2))
    assert isinstance(result, Prepared), result
    assert (result.start_seconds, result.end_seconds) == (0.8, 2.2)
    assert len(result.clip) == 35
    opens = np.abs(np.diff(lower_half(result.clip))).argmax() + 1
    heard = int(np.argmax(np.abs(result.clip.audio) > 300))
    assert opens == 5 and abs(heard - 5 * 640) < 20


def test_steps_are_switched_off(tmp_path):
    sound = 0.4 * voice(openness(30, 3))
    path = write_media(tmp_path / "film.mkv", talking(openness(30, 3)), audio=sound)
    off = ("sync.enabled=False", "sound.normalise=False", "sync.shortest_seconds=1")
    (result,) = results(path, *off)
    assert result.offset_frames is None and "sync_peak" not in result.checks
    np.testing.assert_allclose(result.clip.audio / 32768, sound, atol=1e-4)


def test_of_two_people_the_speaker_becomes_a_clip(tmp_path):
    left, right = openness(85, 1), openness(85, 2)
    pictures = [np.hstack(pair) for pair in zip(talking(left), talking(right, 110), strict=True)]
    path = write_media(tmp_path / "pair.mkv", pictures, audio=voice(right))
    spoken, other = sorted(results(path), key=lambda result: isinstance(result, Refused))
    assert isinstance(spoken, Prepared) and isinstance(other, Refused)
    assert other.reason.startswith("another of 2 faces speaks")
    # The faces are 210 pixels apart, in views of 2 * 1.19 * 80: the head boxes tell nothing, but
    # the agreement of the clip's own mouth with the sound does.
    assert len(spoken.clip) == 85 and spoken.fingerprint.shape == (83,)
    assert opening_of(spoken.clip, right) > 0.8 > 0.6 > opening_of(spoken.clip, left)


def test_two_people_of_whom_both_are_taken_are_two_clips(tmp_path):
    pair = [np.hstack([picture, picture]) for picture in talking(openness(30, 1))]
    path = write_media(tmp_path / "pair.mkv", pair, audio=voice(openness(30, 1)))
    found = results(path, "speaker.enabled=False", "quality.second_face=9")
    assert [result.clip.clip for result in found] == ["pair.mkv", "pair.mkv@face2"]
    assert [result.clip.motion for result in found] == ["pair.mkv", "pair.mkv@face2"]


def test_a_crowd_is_refused_as_a_whole(tmp_path):
    faces = [drawn_face(180, 180, (90, 85 + x), 80) for x in range(3)]
    pictures = [np.vstack([np.hstack(faces)] * 3)] * 26
    path = write_media(tmp_path / "crowd.mkv", pictures, audio=voice(openness(26, 1)))
    (crowd,) = results(path)
    assert isinstance(crowd, Refused) and crowd.reason == "9 faces at one time; show 8 at most"
    assert (crowd.start_seconds, crowd.end_seconds) == (0, 1.04) and crowd.thumbnail
    reasons = [one.reason for one in results(path, "faces.most=9") if isinstance(one, Refused)]
    assert len(reasons) == 9 and all(reason.startswith("9 faces, and") for reason in reasons)


def test_each_shot_is_a_clip(tmp_path):
    one = talking_clip(30)
    other = [255 - picture // 3 for picture in talking_clip(30)]
    sound = 0.3 * voice(openness(90, 5))
    path = write_media(tmp_path / "cut.mkv", one + other + one, audio=sound)
    found = results(path, "quality.contrast=0")
    names = [result.clip.clip for result in found if isinstance(result, Prepared)]
    assert names[0] == "cut.mkv" and names[-1] == "cut.mkv@2.40"
    assert next(len(r.clip) for r in found if isinstance(r, Prepared)) == 30


def views_held() -> int:
    """Views of all candidates that are alive."""
    alive = (one for one in gc.get_objects() if type(one) is clips._Candidate)
    return sum(len(one.frames) for one in alive)


def test_clips_given_on_are_not_kept(tmp_path):
    """Views are most of a long film: of seven seconds no more than two are held at once."""
    sound = 0.3 * voice(openness(175, 5))
    path = write_media(tmp_path / "long.mkv", talking(openness(175, 5)), audio=sound)
    settings = changed(Settings(size=SIZE), [*OPEN, "faces.longest_seconds=1"])
    held = []
    for result in prepare_file(path, path.name, "anna", settings):
        assert isinstance(result, Prepared), result
        held.append(views_held())
    assert len(held) == 7 and 0 < max(held) <= 50


def test_nothing_to_see_is_told_and_shown(tmp_path):
    wall = [np.full((96, 384, 3), (200, 90, 30), np.uint8)] * 30
    path = write_media(tmp_path / "wall.mkv", wall, audio=np.ones(19_200) / 9)
    (refused,) = results(path)
    assert isinstance(refused, Refused) and refused.reason.startswith("no face found")
    assert (refused.start_seconds, refused.end_seconds) == (0, 1.2)
    shown = cv2.imdecode(np.frombuffer(refused.thumbnail, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert shown.shape == (48, 192, 3)
    np.testing.assert_allclose(shown.mean(axis=(0, 1)), (200, 90, 30), atol=6)
