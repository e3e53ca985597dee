"""Recipes read the layouts that data sets are published in, here faked with empty files."""

import json
import sys

import numpy as np
import pytest
from media.drawn import DRAWN, settings_for_drawn, talking_clip, write_media

from xactor_jax import prepare, recipes
from xactor_jax.command import run
from xactor_jax.data.direction import COLUMNS, FLAGS, direction_of
from xactor_jax.data.shards import EMOTIONS, open_shards
from xactor_jax.errors import InputError
from xactor_jax.recipes import find_clips


def lay_out(folder, files):
    """Files with the given texts, in folders of their own."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text if isinstance(text, str) else json.dumps(text))
    return folder


def rows(name, folder, *fields):
    return [tuple(getattr(clip, field) for field in fields) for clip in find_clips(name, folder)]


def test_mead_is_seen_from_the_front_and_heard_from_the_film(tmp_path):
    lay_out(
        tmp_path,
        dict.fromkeys(
            (
                "M003/video/front/angry/level_1/001.mp4",
                "M003/video/front/angry/level_3/012.mp4",
                "M003/video/front/contempt/level_2/003.mp4",
                "M003/video/left_30/angry/level_1/001.mp4",
                "M003/audio/angry/level_1/001.m4a",
                "W009/video/front/neutral/level_1/040.mp4",
                "W009/video/front/neutral/draft/041.mp4",
            ),
            "",
        ),
    )
    assert rows("mead", tmp_path, "path", "person", "emotion", "intensity") == [
        ("M003/video/front/angry/level_1/001.mp4", "M003", "angry", pytest.approx(1 / 3)),
        ("M003/video/front/angry/level_3/012.mp4", "M003", "angry", 1.0),
        ("M003/video/front/contempt/level_2/003.mp4", "M003", "contempt", pytest.approx(2 / 3)),
        ("W009/video/front/neutral/level_1/040.mp4", "W009", "neutral", None),
    ]


def test_ravdess_names_say_emotion_strength_and_actor(tmp_path):
    lay_out(
        tmp_path,
        dict.fromkeys(
            (
                # The example of the Zenodo record, as film with sound: fearful, normal, actor 12.
                "Actor_12/01-01-06-01-02-01-12.mp4",
                "Actor_12/02-01-06-01-02-01-12.mp4",  # without sound
                "Actor_12/01-02-03-02-01-01-12.mp4",  # song
                "Video_Speech_Actor_01/Actor_01/01-01-05-02-01-02-01.mp4",
                "Video_Speech_Actor_01/Actor_01/01-01-01-01-01-01-01.mp4",
                "Actor_03/01-01-09-01-01-01-03.mp4",  # there is no ninth emotion
            ),
            "",
        ),
    )
    assert rows("ravdess", tmp_path, "person", "emotion", "intensity") == [
        ("Actor_12", "fearful", 0.5),
        ("Actor_01", "neutral", None),
        ("Actor_01", "angry", 1.0),
    ]


def test_crema_d_levels_are_those_of_its_readme(tmp_path):
    names = ("1001_IEO_ANG_HI", "1001_IEO_ANG_LO", "1001_IEO_HAP_MD", "1002_DFA_SAD_XX")
    lay_out(tmp_path, {f"VideoFlash/{name}.flv": "" for name in (*names, "notes")})
    lay_out(tmp_path, {"AudioWAV/1001_IEO_ANG_HI.wav": ""})
    assert rows("crema_d", tmp_path, "person", "emotion", "intensity") == [
        ("1001", "angry", 0.8),
        ("1001", "angry", 0.2),
        ("1001", "happy", 0.5),
        ("1002", "sad", None),
    ]


def test_hallo3_has_films_without_names(tmp_path):
    lay_out(tmp_path, {"videos/0001.mp4": "", "caption/0001.txt": "", "wild/videos/0001.mp4": ""})
    assert rows("hallo3", tmp_path, "path", "person") == [
        ("videos/0001.mp4", "videos/0001"),
        ("wild/videos/0001.mp4", "wild/videos/0001"),
    ]


def test_hdtf_is_cut_by_its_list(tmp_path):
    lists = {  # lines of the published list
        "HDTF_dataset/RD_annotion_time.txt": "Radio11.mp4 00:30-01:00 01:30-02:30\n\n"
        "Radio12.mp4 00:25-01:00\nRadio13.mp4 00:00-00:35\n",
        "HDTF_dataset/WDA_annotion_time.txt": "WDA_One_000.mp4 1:00:05-1:01:00\n",
    }
    films = ("raw/Radio11.mp4", "clips/Radio12_0.mp4", "raw/Radio12.mp4", "WDA_WDA_One_000_000.mp4")
    lay_out(tmp_path, lists | dict.fromkeys(films, ""))
    fields = ("path", "person", "start_seconds", "end_seconds")
    assert rows("hdtf", tmp_path, *fields) == [
        ("WDA_WDA_One_000_000.mp4", "WDA_One_000", 0, None),
        ("clips/Radio12_0.mp4", "Radio12", 0, None),
        ("raw/Radio11.mp4", "Radio11", 30, 60),
        ("raw/Radio11.mp4", "Radio11", 90, 150),
    ]
    assert len({clip.name for clip in find_clips("hdtf", tmp_path)}) == 4
    (tmp_path / "WDA_WDA_One_000_000.mp4").rename(tmp_path / "WDA_One_000.mp4")
    assert rows("hdtf", tmp_path, "start_seconds", "end_seconds")[0] == (3605, 3660)
    lay_out(tmp_path, {"HDTF_dataset/RD_annotion_time.txt": "Radio11.mp4 half a minute\n"})
    with pytest.raises(InputError, match="'half' is no time such as"):
        find_clips("hdtf", tmp_path)
    lay_out(tmp_path, {"HDTF_dataset/RD_annotion_time.txt": "Radio11.mp4 01:30-00:30\n"})
    with pytest.raises(InputError, match=r"'01:30-00:30' of Radio11\.mp4 ends before it begins"):
        find_clips("hdtf", tmp_path)
    path = tmp_path / "HDTF_dataset/RD_annotion_time.txt"
    path.write_bytes("Radio\u00e9.mp4 00:30-01:00\n".encode("latin-1"))
    with pytest.raises(InputError, match=f"^{path}: cannot be read as UTF-8"):
        find_clips("hdtf", tmp_path)


# The examples of the READMEs of both data sets.
CELEBV_HQ = {
    "meta_info": {},
    "clips": {
        "M2Ohb0FAaJU_1": {
            "ytb_id": "M2Ohb0FAaJU",
            "duration": {"start_sec": 81.62, "end_sec": 86.17},
            "attributes": {"emotion": {"sep_flag": False, "labels": "neutral"}},
        },
        "_0tf2n3rlJU_0": {
            "ytb_id": "_0tf2n3rlJU",
            "duration": {"start_sec": 52.72, "end_sec": 56.1},
            "attributes": {"emotion": {"sep_flag": True, "labels": [{"emotion": "happy"}]}},
        },
        "gone_0": {"ytb_id": "gone", "duration": {"start_sec": 1.0, "end_sec": 2.0}},
    },
}
CELEBV_TEXT = {
    "clips": {
        "0-5BrmyFsYM_0": {
            "ytb_id": "0-5BrmyFsYM",
            "duration": {"start_sec": 0.0, "end_sec": 9.64},
        },
        "00-30GQl0TM_7": {
            "ytb_id": "00-30GQl0TM",
            "duration": {"start_frame": 415.29, "end_frame": 420.88},
        },
    }
}


BAD_ROWS = {
    "bad_0": {"ytb_id": "bad", "duration": {"start_sec": 0, "end_sec": 0}},
    "bad_1": {"ytb_id": "bad", "duration": {"start_sec": 5.0, "end_sec": 2.0}},
    "bad_2": {"ytb_id": "bad"},
    "bad_3": {"duration": {"start_sec": 0, "end_sec": 3}},
    "bad_4": None,
}


def test_celebv_takes_cut_clips_or_cuts_whole_videos(tmp_path):
    fields = ("path", "person", "emotion", "start_seconds", "end_seconds")
    hq = lay_out(
        tmp_path / "hq",
        {
            "celebvhq_info.json": CELEBV_HQ,
            "downloaded_celebvhq/processed/M2Ohb0FAaJU_1.mp4": "",
            "downloaded_celebvhq/raw/_0tf2n3rlJU.mp4": "",
        },
    )
    assert rows("celebv_hq", hq, *fields) == [
        ("downloaded_celebvhq/processed/M2Ohb0FAaJU_1.mp4", "M2Ohb0FAaJU", "neutral", 0, None),
        ("downloaded_celebvhq/raw/_0tf2n3rlJU.mp4", "_0tf2n3rlJU", "", 52.72, 56.1),
    ]
    text = lay_out(
        tmp_path / "text",
        {"celebvtext_info.json": CELEBV_TEXT, "raw/0-5BrmyFsYM.mp4": "", "raw/00-30GQl0TM.mp4": ""},
    )
    assert rows("celebv_text", text, *fields) == [
        ("raw/0-5BrmyFsYM.mp4", "0-5BrmyFsYM", "", 0, 9.64),
        ("raw/00-30GQl0TM.mp4", "00-30GQl0TM", "", 415.29, 420.88),
    ]
    rows_of = {"celebvtext_info.json": CELEBV_TEXT["clips"] | BAD_ROWS}
    lay_out(text, {name: {"clips": clips} for name, clips in rows_of.items()})
    lay_out(text, {"raw/bad.mp4": ""})
    assert len(find_clips("celebv_text", text)) == 2
    with pytest.raises(InputError, match=r"celebvtext_info\.json is missing"):
        find_clips("celebv_text", hq)
    lay_out(text, {"celebvtext_info.json": {"clips": {"0-5BrmyFsYM_0": {}}}})
    with pytest.raises(InputError, match="not a list of clips"):
        find_clips("celebv_text", text)


def test_talkvid_people_are_those_of_the_list(tmp_path):
    entry = {  # of the example in its README
        "id": "videovideoTr6MMsoWAog-scene1-scene1",
        "start-time": 0.1,
        "end-time": 5.141666666666667,
        "info": {
            "Person ID": "597",
            "Video Link": "https://www.youtube.com/watch?v=Tr6MMsoWAog",
        },
    }
    clips = lay_out(
        tmp_path,
        {
            "filtered_video_clips.json": [entry],
            "clips_output/Tr6MMsoWAog/Tr6MMsoWAog_001_0.100_5.142.mp4": "",
            "clips_output/Tr6MMsoWAog/Tr6MMsoWAog_002_9.000_12.000.mp4": "",
            "clips_output/Tr6MMsoWAog/other.mp4": "",
            "clips_output/json_logs/Tr6MMsoWAog_0.100_5.142.json": "{}",
        },
    )
    assert rows("talkvid", clips, "person") == [("person_597",), ("Tr6MMsoWAog",)]
    bad = [None, {}, entry | {"info": {}}, entry | {"end-time": "late"}]
    lay_out(tmp_path, {"filtered_video_clips.json": [*bad, entry], "package.json": {"name": "x"}})
    lay_out(tmp_path, {"broken.json": "{"})
    assert rows("talkvid", clips, "person") == [("person_597",), ("Tr6MMsoWAog",)]
    lay_out(tmp_path, {"filtered_video_clips.json": bad})
    with pytest.raises(InputError, match=r"filtered_video_clips\.json: not a list of clips"):
        find_clips("talkvid", tmp_path)
    (tmp_path / "filtered_video_clips.json").write_text("[")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        find_clips("talkvid", tmp_path)


@pytest.mark.parametrize("name", recipes.NAMES)
def test_every_recipe_has_terms_and_refuses_another_layout(name, tmp_path):
    assert recipes.recipe(name).licence
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(InputError, match=f"^{tmp_path}"):
        find_clips(name, tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_clips(name, tmp_path / "nowhere")


def test_an_unknown_recipe_is_told():
    with pytest.raises(InputError, match="--recipe=voxceleb: use one of celebv_hq, "):
        recipes.recipe("voxceleb")


def tone(seconds):
    """Silence for a second, then a tone."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    return (0.5 * (time >= 1) * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


def test_preparation_cuts_and_labels_what_a_recipe_lists(tmp_path, monkeypatch, capsys):
    folder, output = tmp_path / "mead", tmp_path / "shards"
    film = folder / "M003/video/front/happy/level_2/001.mkv"
    film.parent.mkdir(parents=True)
    write_media(film, talking_clip(30), audio=tone(1.2))
    film.rename(film.with_suffix(".mp4"))
    monkeypatch.setattr(
        sys,
        "argv",
        [
            *("prepare", f"--input={folder}", f"--output={output}"),
            *("--size=64", "--recipe=mead", "--test_fraction=0", "--set=splits.validation=0"),
            *(f"--set={change}" for change in DRAWN),
        ],
    )
    run(prepare.main)
    assert "mead: MEAD terms of use: research only" in capsys.readouterr().out
    [clip] = open_shards(output, "train")
    assert (clip.identity, set(clip.emotion)) == ("M003", {EMOTIONS.index("happy")})
    rows = direction_of(clip)
    assert np.all(rows[:, FLAGS["emotion"]] == 1)
    np.testing.assert_allclose(rows[:, COLUMNS["emotion"]].max(axis=1), 2 / 3)

    whole = lay_out(
        tmp_path / "celebv",
        {
            "celebvhq_info.json": {
                "clips": {
                    "v_0": {"ytb_id": "v", "duration": {"start_sec": 0.8, "end_sec": 2.0}},
                    "v_1": {"ytb_id": "v", "duration": {"start_sec": 0.0, "end_sec": 1.2}},
                }
            }
        },
    )
    write_media(whole / "v.mkv", talking_clip(55, drift=1), audio=tone(2.2))
    (whole / "v.mkv").rename(whole / "v.mp4")
    settings = settings_for_drawn(64, "duplicates.enabled=False")
    assert prepare.prepare(whole, output, settings, recipe="celebv_hq") == (2, 0)
    first, second = open_shards(output, "train")
    assert (len(first), len(second)) == (30, 30) and not len(first.emotion)
    # The tone begins a second into the film: after 0.2 s of what begins at 0.8 s.
    loud = np.abs(second.audio) > 1000
    assert abs(int(np.argmax(loud)) - round(0.2 * 16_000)) < 60
    assert not (np.abs(first.audio[: 16_000 - 60]) > 1000).any()


def test_stretches_of_one_film_are_in_one_split(tmp_path):
    text = "A.mp4 00:00-00:01 00:01-00:02 00:02-00:03\nB.mp4 00:00-00:01 00:01-00:02 00:02-00:03\n"
    lay_out(tmp_path / "in", {"HDTF_dataset/RD_annotion_time.txt": text})
    sound = 0.2 * np.sin(np.arange(48_000) / 10)
    for name in ("A.mp4", "B.mp4"):
        film = write_media(tmp_path / "film.mkv", talking_clip(75), audio=sound)
        film.rename(tmp_path / "in" / name)
    wanted = settings_for_drawn(64, "duplicates.enabled=False", "splits.test=0.5")
    assert prepare.prepare(tmp_path / "in", tmp_path / "out", wanted, recipe="hdtf") == (6, 0)
    films = {}
    for name in ("train", "test"):
        split = open_shards(tmp_path / "out", name)
        films[name] = [split.header(i).identity for i in range(len(split))]
    assert sorted(map(sorted, films.values())) == [["A"] * 3, ["B"] * 3]
