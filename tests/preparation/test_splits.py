"""Splits keep speakers apart, stay where they are, and hold what was asked for."""

import pytest

from xactor_jax.preparation import splits
from xactor_jax.preparation.settings import Splits


def people(count: int, clips: int = 20) -> list[tuple[str, str]]:
    return [(f"s{i}/clip{j}.mpg", f"s{i}") for i in range(count) for j in range(clips)]


def test_speakers_are_in_one_split_only():
    clips = people(100)
    chosen = splits.assign(clips, Splits(test=0.2, validation=0.1))
    of = {}
    for (_, speaker), split in zip(clips, chosen, strict=True):
        assert of.setdefault(speaker, split) == split
    counts = {name: list(of.values()).count(name) for name in splits.NAMES}
    # Binomial of 100: deviations 4 and 3.
    assert abs(counts["test"] - 20) <= 12 and abs(counts["validation"] - 10) <= 9


def test_no_wanted_split_is_empty():
    for seed in range(20):
        chosen = splits.assign(people(10), Splits(test=0.02, validation=0.02, seed=seed))
        assert set(chosen) == set(splits.NAMES)
        files = [(f"{n}.mp4", "anna") for n in range(3)]
        assert set(splits.assign(files, Splits(seed=seed))) == set(splits.NAMES)
    assert set(splits.assign(people(10), Splits(test=0, validation=0))) == {"train"}


def test_few_speakers_are_split_by_clip():
    clips = people(1, 4000)
    chosen = splits.assign(clips, Splits())
    # Binomial: 240 expected, 15 the deviation; 160 and 12.
    assert 180 < chosen.count("test") < 300
    assert 112 < chosen.count("validation") < 208
    held = [name for (name, _), split in zip(clips, chosen, strict=True) if split == "test"]
    assert set(held) <= {
        name
        for (name, _), split in zip(clips, splits.assign(clips, Splits(test=0.1)), strict=True)
        if split == "test"
    }


def test_clips_of_one_file_stay_together():
    chosen = splits.assign([("a.mp4", "x")] * 5, Splits(by="clip", test=0.5, validation=0.2))
    assert len(set(chosen)) == 1


def test_seeds_choose_differently():
    clips = people(40)
    one, other = (splits.assign(clips, Splits(test=0.3, seed=seed)) for seed in (0, 1))
    assert one == splits.assign(clips, Splits(test=0.3)) and one != other


@pytest.mark.parametrize("by", ["speaker", "clip"])
def test_more_clips_change_nothing(by):
    settings = Splits(by=by, test=0.3, validation=0.1)
    few = dict(zip(people(20), splits.assign(people(20), settings), strict=True))
    many = dict(zip(people(30), splits.assign(people(30), settings), strict=True))
    assert few.items() <= many.items()


def test_the_test_clips_of_grid_are_those_of_the_bundled_weights():
    """For instance `printf bbaf2n.mpg | sha256sum` begins with 80165de6, half of 2^32."""
    names = ["bbaf2n.mp4", "bbal7s.mp4", "bbal9a.mp4", "bbbf6n.mp4", "bbbs6p.mp4", "bbbz8n.mp4"]
    chosen = splits.assign([(name, "footage") for name in names], Splits())
    held = [name for name, split in zip(names, chosen, strict=True) if split == "test"]
    # Sentences that the model card's 61 test clips begin with.
    assert held == ["bbal7s.mp4", "bbbf6n.mp4", "bbbs6p.mp4", "bbbz8n.mp4"]
    assert abs(splits.place("bbaf2n.mpg", 0) - 0x80165DE6 / 2**32) < 1e-12
