"""Offsets made on purpose are found, and clips are joined by person."""

import numpy as np
from data.flat_clips import make_clip
from preparation.spoken import mouths, openness, voice

from experiments.offsets import Joined, groups, joined, measure, moved
from xactor_jax.data.shards import open_shards, write_shards


def test_sounds_are_moved_by_whole_frames():
    sound = np.arange(1.0, 6 * 640 + 1)
    assert (moved(sound, 2)[: 2 * 640] == 0).all() and moved(sound, 2)[2 * 640] == 1
    assert moved(sound, -2)[0] == 2 * 640 + 1 and (moved(sound, -2)[-2 * 640 :] == 0).all()
    assert len(moved(sound, 2)) == len(moved(sound, -2)) == len(sound)


def test_a_mouth_that_follows_the_voice_is_brought_in_step():
    found = []
    for seed in range(6):
        opening = openness(500, seed)
        found.append(Joined(mouths(opening), voice(opening)))
    shares = measure(found, 10, np.random.default_rng(0))
    assert shares["right_to_one_frame"] == shares["sure_and_right"] == 1
    assert shares["sure_of_anothers_sound"] <= 1 / 6  # by chance, as in test_sync.py


def test_clips_are_joined_by_person(tmp_path):
    clips = [make_clip(f"{who}-{n}", who, 8) for who in ("anna", "ben") for n in range(3)]
    write_shards(tmp_path, {"train": clips})
    shards = open_shards(str(tmp_path), "train")
    found = list(groups(shards, 16 / 25, np.random.default_rng(0)))
    people = [[shards.header(i).identity for i in group] for group in found]
    assert sorted(people) == [["anna"] * 2, ["ben"] * 2]
    both = joined([shards[i] for i in found[0]])
    assert both.mouth.shape == (16, 16, 24) and both.audio.shape == (16 * 640,)
