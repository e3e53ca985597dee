"""Footage becomes clips that hold what was filmed; what is of no use is listed with its reason."""

import csv
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from media.drawn import DRAWN, drawn_face, grey_frames, talking_clip, write_media
from media.drawn import settings_for_drawn as settings

from xactor_jax import prepare
from xactor_jax.data import shards
from xactor_jax.errors import InputError
from xactor_jax.preparation import workers

RATE = 16_000


def voice(seconds: float) -> np.ndarray:
    """A ramp of loudness, so that every moment of the sound can be told."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * time / seconds * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


def rejected(output) -> dict[str, str]:
    with (output / "rejected.csv").open(newline="") as file:
        return {row["source"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("some footage")
    (folder / "anna").mkdir()
    talking = talking_clip(36, drift=0.5)
    write_media(folder / "anna" / "good.mkv", talking, audio=voice(1.44))
    times = [t / 50 for t in range(72)]
    write_media(folder / "fast.mkv", [talking[t // 2] for t in range(72)], times, audio=voice(1.44))
    write_media(folder / "mute.mp4", talking)
    write_media(folder / "short.mkv", talking[:20], audio=voice(0.8))
    write_media(folder / "wall.mkv", grey_frames([90] * 30), audio=voice(1.2))
    pair = [np.hstack([frame, frame]) for frame in talking[:30]]
    write_media(folder / "pair.mkv", pair, audio=voice(1.2))
    jump = talking[:15] + [drawn_face(200, 240, (100, 135), 80)] * 15
    write_media(folder / "jump.mkv", jump, audio=voice(1.2))
    cut = talking[:15] + [np.roll(255 - frame, 5, axis=1) for frame in talking[:15]]
    write_media(folder / "cut.mkv", cut, audio=voice(1.2))
    lost = talking[:20] + [np.full_like(talking[0], (90, 120, 150))] * 10
    write_media(folder / "lost.mkv", lost, audio=voice(1.2))
    (folder / "broken.mp4").write_bytes(bytes(range(256)) * 40)
    (folder / "notes.txt").write_text("not footage")
    write_media(folder / "voice.wav", audio=voice(1.0))
    return folder


@pytest.fixture(scope="module")
def prepared(footage, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "shards"
    wanted = settings(96, "duplicates.enabled=False")
    assert prepare.prepare(footage, output, wanted, licence="CC BY 4.0") == (2, 9)
    return output


def test_what_cannot_be_used_is_listed_with_its_reason(prepared):
    reasons = rejected(prepared)
    expected = {
        "broken.mp4": "not an audio or video file",
        "cut.mkv": "no face stays for 1 s without a cut, the longest for 0.60 s",
        "jump.mkv": "no face stays for 1 s",
        "lost.mkv": "no face stays for 1 s without a cut, the longest for 0.80 s",
        "mute.mp4": "no audio track",
        "pair.mkv": "2 faces, and it is not clear who speaks",
        "short.mkv": "only 0.80 s",
        "wall.mkv": "no face found",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reasons[name].startswith(reason), (name, reasons[name])


def test_a_clip_holds_what_was_filmed(prepared):
    opened = shards.open_shards(prepared, "train")
    clips = {opened.header(i).clip: opened[i] for i in range(len(opened))}
    assert set(clips) == {"anna/good.mkv", "fast.mkv"}
    assert (clips["anna/good.mkv"].identity, clips["fast.mkv"].identity) == ("anna", "footage")
    for clip in clips.values():
        assert (len(clip), clip.size, clip.source) == (36, 96, "footage")
        # Sound is where it was, to the rounding of 16 bits (twice).
        np.testing.assert_allclose(clip.audio / 32768, voice(1.44), atol=1e-4)
        # The head drifts by half a pixel a frame, in a view of about 2 * 1.19 * 80 pixels; the ends
        # of the track are flattened by its smoothing.
        across = clip.head_box[:, 1]
        assert abs((across[28] - across[8]) * 2 * 1.19 * 80 - 10) < 2
        np.testing.assert_allclose(np.median(clip.head_box, axis=0), 0.5, atol=0.12)


def test_the_view_shows_the_frame_of_the_time(prepared):
    opened = shards.open_shards(prepared, "train")
    good, fast = sorted((opened[0], opened[1]), key=lambda clip: clip.clip)
    moments = [0, 7, 17, 30]
    a, b = shards.decode_frames(good, moments), shards.decode_frames(fast, moments)
    # The same scene at 50 frames a second gives the same pictures, to coding and half a pixel.
    assert np.abs(a.astype(int) - b).mean() < 2
    apart = np.abs(a[1].astype(int) - a[3]).mean()
    assert apart > 3 * np.abs(a[1].astype(int) - b[1]).mean()


def test_running_again_continues(footage, tmp_path, monkeypatch):
    inputs, output = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in ("fast.mkv", "mute.mp4"):
        shutil.copy(footage / name, inputs / name)
    prepare.prepare(inputs, output, settings(64))
    done = []
    work = workers.stage

    def counted(clip, staging):
        done.append(clip.name)
        return work(clip, staging)

    monkeypatch.setattr(workers, "stage", counted)
    assert prepare.prepare(inputs, output, settings(64)) == (1, 1)
    assert done == []
    shutil.copy(footage / "anna" / "good.mkv", inputs / "more.mkv")
    write_media(inputs / "mute.mp4", talking_clip(30), audio=voice(1.2))
    assert prepare.prepare(inputs, output, settings(64, "duplicates.enabled=False")) == (3, 0)
    assert sorted(done) == ["more.mkv", "mute.mp4"]
    assert len(shards.open_shards(output, "train")) == 3
    assert rejected(output) == {}


def test_the_tables_name_every_clip(prepared, footage):
    table = pq.read_table(prepared / "manifest.parquet").to_pylist()
    assert [row["source"] for row in table] == ["anna/good.mkv", "fast.mkv"]
    good = table[0]
    assert (good["start_seconds"], good["end_seconds"], good["split"]) == (0.0, 1.44, "train")
    assert (good["licence"], good["offset_frames"]) == ("CC BY 4.0", None)
    whole = (footage / "anna" / "good.mkv").read_bytes()
    assert good["checksum"] == hashlib.sha256(whole).hexdigest()
    # The drawn face has a side of 80 pixels, 1.19 of which BlazeFace's box has.
    assert abs(good["checks"]["face_pixels"] / (1.19 * 80) - 1) < 0.1
    refused = pq.read_table(prepared / "rejected.parquet").to_pylist()
    assert {row["source"]: row["reason"] for row in refused} == rejected(prepared)


def test_the_report_needs_nothing_else(prepared):
    text = (prepared / "report.html").read_text()
    assert "2 clips" in text and "anna/good.mkv" in text
    assert "not clear who speaks" in text and text.count("data:image/jpeg;base64,") == 9
    assert not re.search(r'(src|href)="(?!data:|#)|<script|<link|@import|url\((?!#)', text)


def test_copies_are_rejected(footage, tmp_path):
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name in ("a.mkv", "b.mkv"):
        shutil.copy(footage / "anna" / "good.mkv", inputs / name)
    assert prepare.prepare(inputs, tmp_path / "out", settings(64)) == (1, 1)
    assert rejected(tmp_path / "out") == {"b.mkv": "a copy of a.mkv"}


def test_processes_side_by_side_give_the_same(footage, prepared, tmp_path):
    inputs, output = tmp_path / "in", tmp_path / "out"
    (inputs / "anna").mkdir(parents=True)
    for name in ("anna/good.mkv", "fast.mkv", "mute.mp4"):
        shutil.copy(footage / name, inputs / name)
    command = [sys.executable, "-m", "xactor_jax.prepare", f"--input={inputs}"]
    command += [f"--output={output}", "--size=96", "--test_fraction=0", "--jobs=2"]
    command += [f"--set={change}" for change in (*DRAWN, "splits.validation=0")]
    command += ["--set=duplicates.enabled=False"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}: 2 clips prepared, 1 rejected (report.html shows why)\n"
    assert done.stderr == ""
    one, other = (shards.open_shards(folder, "train") for folder in (prepared, output))
    assert [one[i].frames for i in range(2)] == [other[i].frames for i in range(2)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input=nowhere", "--output=out"], "error: nowhere: no such folder"),
        (["--input=.", "--output=out", "--size=31"], "error: --size=31"),
        (["--input=.", "--output=out", "--jobs=0"], "error: --jobs=0"),
        (["--input=.", "--output=out", "--test_fraction=1"], "error: --test_fraction=1.0"),
        (["--input=.", "--output=out"], "error: .: no video in this folder"),
        (
            ["--input=gs://bucket/raw", "--output=out"],
            "error: argument --input: gs://bucket",
        ),
        (["--input=.", "--output=out", "--direct_num_workers=2"], "error: unrecognized arguments"),
        (
            ["--input=.", "--output=out", "--runner=Flink", "--jobs=2"],
            "error: --jobs=2: with",
        ),
        (
            ["--input=.", "--output=out", "--features=renderer.safetensors"],
            "error: renderer.safetensors: ",
        ),
        (["--input=."], "error: the following arguments are required: --output"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(flags, message, tmp_path, monkeypatch, capsys):
    from xactor_jax.command import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare", *flags])
    with pytest.raises(SystemExit) as exit:
        run(prepare.main)
    assert exit.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith(message) and stderr.count("\n") == 1


def test_a_runner_without_beam_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "xactor_jax.preparation.beam_pipeline", raising=False)
    with pytest.raises(InputError, match=r"pip install 'xactor_jax\[beam\]'"):
        prepare.prepare(tmp_path, tmp_path / "out", runner="DirectRunner")


def test_footage_without_any_usable_clip_is_told(footage, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(footage / "mute.mp4", tmp_path / "in" / "mute.mp4")
    with pytest.raises(InputError, match=r"no clip can be used; .*rejected\.csv"):
        prepare.prepare(tmp_path / "in", tmp_path / "out")
    assert "no audio track" in (tmp_path / "out" / "report.html").read_text()


def test_clips_of_an_earlier_run_go_where_none_is_kept_any_more(footage, tmp_path):
    inputs, output = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    shutil.copy(footage / "fast.mkv", inputs / "film.mkv")
    assert prepare.prepare(inputs, output, settings(64)) == (1, 0)
    (output / "notes.txt").write_text("of the user")
    shutil.copy(footage / "mute.mp4", inputs / "film.mkv")
    with pytest.raises(InputError, match="no clip can be used"):
        prepare.prepare(inputs, output, settings(64))
    assert sorted(path.name for path in output.iterdir()) == [
        *("clips", "notes.txt", "rejected.csv", "rejected.parquet", "report.html")
    ]
    with pytest.raises(InputError, match="no clips here"):
        shards.open_shards(output, "train")


def test_files_of_unknown_names_count_where_they_are_films(footage, tmp_path):
    inputs, output = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in ("LICENCE", "notes.unknown"):
        (inputs / name).write_text("no film")
    shutil.copy(footage / "mute.mp4", inputs / "mute")
    for _ in range(2):
        with pytest.raises(InputError, match="no video in this folder"):
            prepare.prepare(inputs, output, settings(64))
    shutil.copy(footage / "anna" / "good.mkv", inputs / "good")
    assert prepare.prepare(inputs, output, settings(64)) == (1, 0)
    assert rejected(output) == {}


def test_a_file_that_changes_meanwhile_is_listed(footage, tmp_path, monkeypatch):
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name in ("good.mkv", "growing.mkv"):
        shutil.copy(footage / "anna" / "good.mkv", inputs / name)
    work = workers.stage

    def growing(one, staging):
        work(one, staging)
        if one.name == "growing.mkv":
            with one.path.open("ab") as file:
                file.write(b"more")

    monkeypatch.setattr(workers, "stage", growing)
    assert prepare.prepare(inputs, tmp_path / "out", settings(64)) == (1, 1)
    assert rejected(tmp_path / "out") == {"growing.mkv": "changed while it was read; run again"}
    monkeypatch.setattr(workers, "stage", work)
    wanted = settings(64, "duplicates.enabled=False")
    assert prepare.prepare(inputs, tmp_path / "out", wanted) == (2, 0)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_the_system_does_not_let_be_read_is_listed_and_the_rest_goes_on(
    footage, tmp_path, monkeypatch, code
):
    inputs, output = tmp_path / "in", tmp_path / "out"
    closed = [inputs / "closed.mkv", inputs / "closed", inputs / "unknown"]
    inputs.mkdir()
    closed[1].mkdir()
    for path in (inputs / "good.mkv", closed[0], closed[2]):
        shutil.copy(footage / "anna" / "good.mkv", path)

    def failing(work):
        def fail(path=".", *args, **kwargs):
            if not isinstance(path, int) and os.fspath(path) in map(str, closed):
                raise OSError(code, os.strerror(code), os.fspath(path))
            return work(path, *args, **kwargs)

        return fail

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", failing(os.stat))
        patch.setattr(os, "scandir", failing(os.scandir))
        assert prepare.prepare(inputs, output, settings(64)) == (1, 3)
        reasons = rejected(output)
        why = "may not be read" if code == errno.EACCES else f"cannot be read ({os.strerror(code)})"
        assert reasons["closed.mkv"].startswith(why) and reasons["unknown"].startswith(why)
        assert reasons["closed"].startswith(f"this folder {why}")
    wanted = settings(64, "duplicates.enabled=False")
    assert prepare.prepare(inputs, output, wanted) == (3, 0)
