"""A file that ends its process is told, and takes nothing else along."""

import os

import numpy as np
import pytest
from media.drawn import talking_clip, write_media
from preparation.deadly import DeadlyFootage

from xactor_jax.preparation.footage import Footage
from xactor_jax.preparation.settings import Settings
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
