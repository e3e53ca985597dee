"""The offset between mouth and sound is found, and is not claimed where they do not belong."""

import numpy as np
import pytest
from preparation.spoken import mouths, openness, voice

from xactor_jax.preparation import sync
from xactor_jax.preparation.settings import Sync

SECONDS_10 = 250


def late(audio: np.ndarray, frames: int) -> np.ndarray:
    """Sound delayed by so many frames, or hurried by as many where negative."""
    moved = np.roll(audio, frames * 640)
    if frames > 0:
        moved[: frames * 640] = 0
    elif frames < 0:
        moved[frames * 640 :] = 0
    return moved


@pytest.mark.parametrize("frames", [-10, -4, 0, 1, 10])
def test_the_offset_is_found(frames):
    opening = openness(SECONDS_10, seed=frames + 10)
    curve = sync.agreement(mouths(opening), late(voice(opening), frames), 15)
    found = sync.offset(curve)
    assert found.frames == frames and found.sure(Sync())


def test_another_voice_is_not_sure():
    """Of six pairs that have nothing to do with each other, one may agree by chance."""
    sure = 0
    for seed in range(6):
        seen, heard = openness(2 * SECONDS_10, seed), openness(2 * SECONDS_10, 100 + seed)
        sure += sync.offset(sync.agreement(mouths(seen), voice(heard), 15)).sure(Sync())
    assert sure <= 1


def test_a_still_mouth_is_not_sure():
    heard = voice(openness(SECONDS_10))
    found = sync.offset(sync.agreement(mouths(np.zeros(SECONDS_10)), heard, 15))
    assert not found.sure(Sync())


def test_too_few_frames_are_told():
    with pytest.raises(ValueError, match="40 frames are too few"):
        sync.agreement(mouths(openness(40)), voice(openness(40)), 15)


def test_the_patch_is_the_mouths():
    """A dark spot where a mouth is, of a head that fills a part of the view."""
    view = np.full((200, 200), 180, np.uint8)
    head = np.array([0.5, 0.4, 0.5], np.float32)
    view[122:128, 70:90] = 20  # a quarter of the box's side of 100 below its centre
    patch = sync.mouth_patch(view, head)
    assert patch.shape == (16, 24)
    rows, columns = np.nonzero(patch < 120)
    assert abs(rows.mean() - 7.5) < 1 and abs(columns.mean() - 11.5) < 1
