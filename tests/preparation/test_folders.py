"""Clips that are too short to tell their offset tell it together."""

import numpy as np
from preparation.spoken import mouths, openness, voice

from xactor_jax.preparation import folders, sync
from xactor_jax.preparation.settings import Sync

FRAMES = 75


def row(seed: int, late: int, identity: str = "anna", heard: int | None = None) -> dict:
    """Of a clip of 3 s whose sound is late by so many frames, or is another clip's."""
    opening = openness(FRAMES + 40, seed)
    sound = voice(opening if heard is None else openness(FRAMES + 40, heard))
    sound = sound[(20 - late) * 640 : (20 - late + FRAMES) * 640]
    curve = sync.agreement(mouths(opening[20 : 20 + FRAMES]), sound, folders.MOST)
    return {
        "identity": identity,
        "curve": curve.tolist(),
        "frames": FRAMES,
        "offset_frames": None,
        "start_seconds": 1.0,
        "end_seconds": 4.0,
    }


def test_a_folder_is_mended_together():
    rows = [row(seed, 6) for seed in range(4)] + [row(seed, -4, "ben") for seed in range(4)]
    mended, short = folders.mend(rows, Sync(), 1.0)
    assert not short
    assert [one["offset_frames"] for one in mended] == [6] * 4 + [-4] * 4
    spans = {(one["start_seconds"], round(one["end_seconds"], 6)) for one in mended}
    # The last 6 frames, or the first 4, have no sound.
    assert spans == {(1.0, 3.76), (1.16, 4.0)}


def test_what_is_not_sure_stays_as_it_is():
    little = [row(seed, 6) for seed in range(3)]
    strange = [row(seed, 0, "ben", heard=50 + seed) for seed in range(8)]
    assert folders.mend(little + strange, Sync(), 1.0) == (little + strange, [])
    alone = [row(1, 6)] * 9
    assert folders.mend(alone, Sync(pooled=False), 1.0) == (alone, [])
    sure = [row(seed, 6) for seed in range(4)]
    # Measured by itself, or too short to tell: of that, nobody knows whether it is like the others.
    for other in (row(1, 6) | {"offset_frames": 2}, row(1, 6) | {"curve": [], "frames": 30}):
        assert folders.mend([other, *sure], Sync(), 1.0)[0][0] == other


def test_what_becomes_too_short_is_refused():
    rows = [row(seed, 6) for seed in range(4)]
    kept, short = folders.mend(rows, Sync(), 2.8)
    assert not kept and [one["curve"] for one in short] == [one["curve"] for one in rows]
    assert short[0]["reason"] == "only 2.76 s once the sound is in step"


def test_a_frame_is_within_the_error():
    mended, _ = folders.mend([row(seed, 1) for seed in range(4)], Sync(), 1.0)
    assert {one["offset_frames"] for one in mended} == {0}
    assert np.isclose(mended[0]["end_seconds"], 4.0)
