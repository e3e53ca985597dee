"""Scripts of directions: what is told when, and what is wrong with a file."""

import json

import numpy as np
import pytest

from xactor_jax.data.direction import ALL_OF, COLUMNS, FLAGS, WIDTH
from xactor_jax.data.shards import EMOTIONS
from xactor_jax.errors import InputError
from xactor_jax.timeline import Timeline, read_timeline


@pytest.fixture
def read(tmp_path):
    def written(entries):
        path = tmp_path / "script.json"
        path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        return read_timeline(path, 150)

    return written


def test_entries_hold_from_second_to_second_and_later_ones_replace(read):
    timeline = read(
        [
            {"from": 0, "to": 4, "emotion": "sad", "intensity": 0.5},
            {"from": 2, "emotion": "happy"},
            {"from": 1, "to": 1.4, "yaw": -20, "gaze": [10, 5], "stillness": 1},
            {"from": 3, "to": 3.001, "blink": 1},
        ]
    )
    rows = timeline.frames(0, 150)
    assert rows.shape == (150, WIDTH)
    emotions = rows[:, COLUMNS["emotion"]]
    sad, happy = (EMOTIONS.index(name) - 1 for name in ("sad", "happy"))
    np.testing.assert_allclose(emotions[:50, sad], 0.5)
    np.testing.assert_allclose(emotions[50:, happy], 1)  # without `to`: to the end
    assert np.count_nonzero(emotions) == 150
    told = rows[:, FLAGS["yaw"]] > 0
    assert np.flatnonzero(told).tolist() == list(range(25, 35))
    np.testing.assert_allclose(rows[told][:, COLUMNS["yaw"]], -2, rtol=1e-5)
    np.testing.assert_allclose(rows[told][:, COLUMNS["gaze"]], [[1, 0.5]] * 10, rtol=1e-5)
    assert np.flatnonzero(rows[:, FLAGS["blink"]]).tolist() == [75]  # a frame at least
    assert not rows[:, ALL_OF["roll"]].any()


def test_any_stretch_is_the_same_as_that_part_of_the_whole(read):
    timeline = read([{"from": 0.2, "to": 1, "pitch": 3}, {"from": 0.6, "blink": 0.5}])
    whole = timeline.frames(0, 50)
    for start, stop in ((0, 10), (7, 20), (18, 31), (40, 50)):
        np.testing.assert_array_equal(timeline.frames(start, stop), whole[start:stop])
    assert timeline.frames(10**7, 10**7 + 5)[:, FLAGS["blink"]].all()  # without end
    assert not Timeline().frames(0, 10).any()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{", "script.json: not JSON: Expecting"),
        ({"emotion": "happy"}, "script.json: give a list of entries"),
        ([3], "entry 1: give names and values in braces"),
        ([{"blink": 1}, {"mood": 1}], "entry 2: unknown 'mood'; use from, to, emotion, intensity"),
        ([{"emotion": "bored"}], "unknown emotion 'bored'; use neutral, happy, sad"),
        ([{"emotion": "sad", "intensity": 2}], "'intensity' is 2; use 0 to 1"),
        ([{"intensity": 0.5, "yaw": 1}], "'intensity' of what"),
        ([{"yaw": 90}], "'yaw' is 90; use -45 to 45"),
        ([{"yaw": "left"}], "'yaw' must be a number, not 'left'"),
        ([{"blink": True}], "'blink' must be a number, not True"),
        ([{"gaze": 10}], "'gaze' is [degrees right, degrees up]"),
        ([{"gaze": [10, 99]}], "'gaze' is [10, 99]; use -45 to 45"),
        ([{"from": 2, "to": 2, "yaw": 1}], "'from' must be 0 or later and before 'to'"),
        ([{"from": -1, "yaw": 1}], "'from' must be 0 or later and before 'to'"),
        ('[{"to": NaN, "yaw": 1}]', "'to' must be a number, not nan"),
        ([{"from": 1e308, "yaw": 1}], "are seconds; use 10000000 at most"),
        ([{"to": 1e308, "yaw": 1}], "are seconds; use 10000000 at most"),
        ([{"yaw": 10**400}], "'yaw' must be a number, not 10000"),
        ("[" * 100_000, "script.json: not JSON"),
        (
            [{"yaw": 1}, {"from": 2000, "to": 3000, "yaw": 2}],
            "script.json: entry 2 begins at 2000 s, but all ends at 6 s; times are seconds",
        ),
        ([{"from": 1, "to": 2}], "entry 1: sets nothing; name one of emotion, intensity, yaw"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(read, entries, message):
    with pytest.raises(InputError) as error:
        read(entries)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json: no such file"):
        read_timeline(tmp_path / "nowhere.json", 1)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=r"photo\.png: cannot be read as text"):
        read_timeline(tmp_path / "photo.png", 1)
    with pytest.raises(InputError, match="cannot be read as text"):
        read_timeline(tmp_path, 1)
