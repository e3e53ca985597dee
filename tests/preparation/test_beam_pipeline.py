"""A Beam runner with two workers makes the same shards as one process, and goes on likewise."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from media.drawn import DRAWN, settings_for_drawn, talking_clip, write_media

from xactor_jax import prepare
from xactor_jax.data import shards
from xactor_jax.errors import InputError
from xactor_jax.preparation.footage import Footage
from xactor_jax.preparation.staging import Staging
from xactor_jax.preparation.workers import stage

pytest.importorskip("apache_beam")

SETTINGS = settings_for_drawn(64, "duplicates.enabled=False")
TWO_PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("footage")
    for name, length in (("a.mkv", 28), ("b.mkv", 30), ("c.mkv", 32), ("d.mkv", 34)):
        sound = 0.2 * np.sin(np.arange(640 * length, dtype=np.float32) / 10)
        write_media(folder / name, talking_clip(length), audio=sound)
    (folder / "broken.mp4").write_bytes(bytes(range(256)) * 40)
    return folder


def beam_command(footage, output) -> str:
    """What the command says, of a Python whose path has a space in it."""
    environment = output.with_name("an environment")
    if not environment.exists():
        environment.symlink_to(sys.prefix, target_is_directory=True)
    flags = [f"--input={footage}", f"--output={output}", "--size=64", "--test_fraction=0"]
    flags += [f"--set={change}" for change in (*DRAWN, "splits.validation=0")]
    flags += ["--set=duplicates.enabled=False", "--runner=DirectRunner", *TWO_PROCESSES]
    python = environment / "bin" / "python"
    command = [str(python), "-m", "xactor_jax.prepare", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fields(folder) -> list[dict[str, bytes]]:
    opened = shards.open_shards(folder, "train")
    records = [dataclasses.asdict(opened[i]) for i in range(len(opened))]
    return [{name: np.asarray(x).tobytes() for name, x in record.items()} for record in records]


def written(output) -> dict[str, tuple[int, int]]:
    files = [path for path in (output / "clips").rglob("*") if path.is_file()]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_two_workers_finish_what_a_killed_run_left_and_then_find_nothing_to_do(footage, tmp_path):
    plain, output = tmp_path / "plain", tmp_path / "out"
    assert prepare.prepare(footage, plain, SETTINGS) == (4, 1)
    # A run that was killed leaves files that are done and one that is begun.
    staging = Staging(output / "clips", SETTINGS)
    staging.folder.mkdir(parents=True)
    stage(Footage(footage, "a.mkv"), staging)
    half = staging.outcome_path(Footage(footage, "b.mkv")).parent
    half.mkdir()
    (half / ".half.npz.partial").write_bytes(b"broken off")
    os.utime(half / ".half.npz.partial", (0, 0))
    before = written(output)

    said = f"{output}: 4 clips prepared, 1 rejected (report.html shows why)\n"
    assert beam_command(footage, output) == said
    after = written(output)
    assert {
        name: after.get(name) for name in before if "half" not in name
    }.items() <= before.items()
    assert after.keys() == written(plain).keys()
    assert fields(output) == fields(plain)
    for name in ("manifest.parquet", "rejected.csv"):
        assert (output / name).read_bytes() == (plain / name).read_bytes()

    assert beam_command(footage, output) == said
    assert written(output) == after


def test_machines_that_do_not_share_the_folder_are_told(footage, tmp_path):
    from xactor_jax.preparation.beam_pipeline import BeamPipeline

    here = Staging(tmp_path / "here", SETTINGS)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.mp4").write_bytes(b"broken")
    known = Footage(tmp_path / "in", "broken.mp4")
    unseen = Footage(footage, "a.mkv")
    here.folder.mkdir()
    stage(known, here)
    pipeline = BeamPipeline("DirectRunner", [])
    with pytest.raises(InputError, match="1 of 2 files are done, but not here"):
        pipeline.stage_all(tmp_path / "in", "", [known, unseen], here, lambda done: None)


@pytest.mark.parametrize(
    ("runner", "flags", "message"),
    [
        ("NoRunner", [], "--runner=NoRunner: Unexpected pipeline runner"),
        ("DirectRunner", ["--direct_num_wokers=2"], "--direct_num_wokers: neither"),
        ("DirectRunner", ["--direct_running_mode=fast"], "invalid choice: 'fast'"),
    ],
)
def test_wrong_runners_and_flags_are_told_in_one_line(runner, flags, message):
    from xactor_jax.preparation.beam_pipeline import BeamPipeline

    with pytest.raises(InputError, match=message) as error:
        BeamPipeline(runner, flags)
    assert "\n" not in str(error.value)
