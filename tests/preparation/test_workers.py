"""A file that ends its process is told, and takes nothing else along."""

import os

import numpy as np
import pytest
from media.drawn import talking_clip, write_media
from preparation.deadly import DeadlyFootage, EndlessFootage

from xactor_jax.errors import InputError
from xactor_jax.preparation.footage import Footage
from xactor_jax.preparation.settings import Settings, Work, changed
from xactor_jax.preparation.staging import Staging
from xactor_jax.preparation.workers import Worker, stage_all


@pytest.fixture
def staging(tmp_path):
    (tmp_path / "clips").mkdir()
    return Staging(tmp_path / "clips", Settings(size=32))


def reasons(staging: Staging, footage: Footage) -> list[str]:
    return [row["reason"] for row in staging.outcome(footage)["refused"]]


def test_a_file_that_takes_its_process_down_is_told_and_the_others_are_done(
    staging, tmp_path, monkeypatch
):
    monkeypatch.setenv("MAIN_PROCESS", str(os.getpid()))
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        write_media(tmp_path / name, talking_clip(26), audio=np.ones(17_000, np.float32) / 9)
    deadly = DeadlyFootage(tmp_path, "b.mkv")
    todo = [Footage(tmp_path, "a.mkv"), deadly, Footage(tmp_path, "c.mkv")]
    done = [one.name for one in stage_all(todo, staging, 2)]
    assert sorted(done) == ["a.mkv", "b.mkv", "c.mkv"]
    assert "the process that read it died" in reasons(staging, deadly)[0]
    for one in (todo[0], todo[2]):
        assert not any("died" in reason for reason in reasons(staging, one))
        assert staging.holds(one)
    # There may be more memory the next time.
    assert not staging.holds(deadly) and staging.outcome(deadly) is None


def test_a_file_that_is_never_done_is_given_up(staging, tmp_path, monkeypatch):
    monkeypatch.setenv("MAIN_PROCESS", str(os.getpid()))
    (tmp_path / "a.mp4").write_bytes(b"film")
    (tmp_path / "b.mp4").write_bytes(b"film")
    endless, ordinary = EndlessFootage(tmp_path, "a.mp4"), Footage(tmp_path, "b.mp4")
    hurried = Staging(staging.folder, Settings(size=32, work=Work(hours=0.0001)))
    list(stage_all([endless], hurried, 1))
    (reason,) = reasons(hurried, endless)
    assert reason == "not done in 0.0001 h; run again with --set=work.hours=0.0002"
    # Another limit does not make the other files anew, and this one is tried again.
    list(stage_all([ordinary], staging, 1))
    assert hurried.holds(ordinary) and not hurried.holds(endless)


def test_a_detector_that_cannot_be_opened_is_no_fault_of_the_files(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"film")
    footage = Footage(tmp_path, "a.mp4")
    settings = changed(Settings(size=32), [f"faces.detector={tmp_path}/none.tflite"])
    staging = Staging(tmp_path / "clips", settings)
    worker = Worker(staging)
    with pytest.raises(InputError, match=r"none\.tflite: no such file"):
        worker.stage(footage)
    worker.close()
    assert staging.outcome(footage) is None


def test_what_fails_in_the_process_is_raised_here(staging, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"film")
    footage = Footage(tmp_path, "a.mp4")
    staging.outcome_path(footage).parent.write_text("a file where a folder must be")
    worker = Worker(staging)
    with pytest.raises(OSError, match="cannot be written"):
        worker.stage(footage)
    worker.close()
    with pytest.raises(RuntimeError, match="no longer"):
        worker.stage(footage)
