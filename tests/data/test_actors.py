"""The commands: shards of actors whose splits share nobody and whose twins share their motion."""

import dataclasses
import json
import sys
import wave

import cv2
import numpy as np
import pytest
from data.tiny_facekit import make_facekit, save_npz

from xactor_jax.command import run
from xactor_jax.data import actors
from xactor_jax.data.actor_head import build_head
from xactor_jax.data.actor_look import make_look
from xactor_jax.data.actor_motion import Motion
from xactor_jax.data.actor_render import render
from xactor_jax.data.actors import Settings, plan_takes, write_actors
from xactor_jax.data.shards import decode_frames, open_shards
from xactor_jax.errors import InputError

SETTINGS = Settings(
    identities=5, test_identities=2, takes=3, test_takes=2, min_seconds=0.6, max_seconds=1.0,
    test_seconds=0.6, long_every=3, long_seconds=1.4, identities_per_take=2, size=48, seed=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def facekit(tmp_path_factory):
    return save_npz(make_facekit(), tmp_path_factory.mktemp("facekit") / "egg.npz")


@pytest.fixture(scope="module")
def folder(facekit, tmp_path_factory):
    output = tmp_path_factory.mktemp("actors")
    frames, _ = write_actors(facekit, output, SETTINGS)
    assert frames > 0
    return output


def clips(folder, split):
    shards = open_shards(folder, split)
    return [shards[i] for i in range(len(shards))]


def test_test_identities_and_motions_are_never_in_train(folder):
    train, test = clips(folder, "train"), clips(folder, "test")
    assert {c.identity for c in test} == {"actor_0003", "actor_0004"}
    assert {c.identity for c in train} <= {"actor_0000", "actor_0001", "actor_0002"}
    assert not {c.motion for c in train} & {c.motion for c in test}
    assert all(c.source == "actor" and c.size == 48 for c in train + test)
    assert sorted({len(c) for c in test}) == [15]
    assert max(len(c) for c in train) == 35  # the long one


def test_one_motion_on_two_identities_shares_its_truth(folder):
    one, two = (c for c in clips(folder, "train") if c.motion == "train_00001")
    assert one.identity != two.identity
    for name in ("audio", "expression", "pose", "gaze", "blink", "emotion", "intensity"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.phonemes == two.phonemes
    pictures = [decode_frames(c, [0])[0].astype(float) for c in (one, two)]
    assert np.abs(pictures[0] - pictures[1]).mean() > 5  # grey levels


def test_the_view_is_twice_the_median_head_box(folder):
    for clip in clips(folder, "train"):
        np.testing.assert_allclose(np.median(clip.head_box, 0), [0.5, 0.5, 0.5], atol=1e-5)


def test_an_interrupted_run_continues_to_the_same_bytes(folder, facekit, tmp_path, monkeypatch):
    whole = actors.make_take
    made = []

    def failing(take, *arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(take.name)
        return whole(take, *arguments)

    monkeypatch.setattr(actors, "make_take", failing)
    with pytest.raises(KeyboardInterrupt):
        write_actors(facekit, tmp_path, SETTINGS)
    made.clear()
    monkeypatch.setattr(actors, "make_take", lambda t, *a: made.append(t.name) or whole(t, *a))
    write_actors(facekit, tmp_path, SETTINGS)
    assert made == ["train_00002", "test_00000", "test_00001"]
    for split in ("train", "test"):
        for one, two in zip(clips(folder, split), clips(tmp_path, split), strict=True):
            assert one.id == two.id and list(one.frames) == list(two.frames)
            np.testing.assert_array_equal(one.audio, two.audio)
            np.testing.assert_array_equal(one.head_box, two.head_box)
    assert write_actors(facekit, tmp_path, SETTINGS) == (0, 0.0)
    assert not (tmp_path / ".takes").exists()
    with pytest.raises(InputError, match="other settings"):
        write_actors(facekit, tmp_path, dataclasses.replace(SETTINGS, seed=5))


def test_every_test_identity_leads_a_take():
    settings = dataclasses.replace(SETTINGS, identities=180, test_identities=30, test_takes=30)
    leads = [take.identities[0] for take in plan_takes(settings) if take.split == "test"]
    assert sorted(leads) == list(range(150, 180))


@pytest.mark.parametrize(
    "change",
    [{"test_identities": 5}, {"identities_per_take": 3}, {"min_seconds": 2.0}, {"size": 7}],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change)).split("_")[-1]):
        dataclasses.replace(SETTINGS, **change)


def still(expression=None, gaze=(0.0, 0.0), pose=(0.0,) * 5):
    row = np.zeros((1, 57), np.float32) if expression is None else expression[None]
    return Motion(
        "still", np.zeros(640, np.int16), (), row, np.array([pose], np.float32),
        np.array([gaze], np.float32), np.zeros(1, np.float32), np.zeros(1, np.int8),
        np.zeros(1, np.float32), np.zeros(1, bool),
    )  # fmt: skip


def test_eyes_look_where_the_gaze_says():
    head = build_head(make_facekit())
    look = make_look(head, (1, 2))
    colours = np.ones_like(look.colours)
    for eye in head.eyes:  # black fronts on a white face
        depth = look.vertices[:, 2]
        colours[eye & (depth > np.quantile(depth[eye], 0.8))] = 0
    look = dataclasses.replace(look, colours=colours, background=np.ones_like(look.background))

    def pupils(gaze):
        frames, _ = render(still(gaze=gaze), look, head, 256)
        ys, xs = np.nonzero(next(frames).mean(2) < 60)
        return np.array([xs.mean(), ys.mean()])

    middle = pupils((0, 0))
    assert pupils((0.3, 0))[0] > middle[0] + 1  # pixels to the right
    assert pupils((-0.3, 0))[0] < middle[0] - 1
    assert pupils((0, 0.3))[1] < middle[1] - 1  # up


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["actors", *map(str, arguments)])
    run(actors.main)


def test_portrait_and_speech_for_a_demonstration(monkeypatch, facekit, tmp_path):
    portrait, speech = tmp_path / "demo" / "portrait.png", tmp_path / "demo" / "speech.wav"
    command(
        monkeypatch, "portrait", f"--facekit={facekit}", f"--output={portrait}", "--size=96",
        "--identity=actor_0004",
    )  # fmt: skip
    assert cv2.imread(str(portrait)).shape == (96, 96, 3)
    command(monkeypatch, "speech", f"--output={speech}", "--text=Hello, my friend.")
    with wave.open(str(speech)) as file:
        assert file.getframerate() == 16000 and file.getnchannels() == 1
        assert 0.7 < file.getnframes() / 16000 < 3
    assert sorted(p.name for p in portrait.parent.iterdir()) == ["portrait.png", "speech.wav"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--facekit=nowhere.npz", "--output=x"],
        ["portrait", "--facekit=nowhere.npz", "--output=x.png"],
        ["portrait", "--facekit=nowhere.npz", "--output=x.png", "--identity=Bob"],
        ["speech", "--output=x.wav", "--voice=nobody"],
        ["--identities=many"],
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, *arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_order_of_the_expressions_is_kept_with_the_data(folder):
    kept = json.loads((folder / "actors.json").read_text())
    assert len(kept["expressions"]) == 57 and "jawOpen" in kept["expressions"]
