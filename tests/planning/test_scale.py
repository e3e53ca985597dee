"""The table of what every config needs, of a folder with small ones."""

import os
import subprocess
import sys

MOTION = """
from configs import motion

SLICES = {"absent": "cpu:none", "small": "cpu:1"}


def get_config(size):
    config = motion.get_config("tiny")
    config.motion.update({"width": 32, "depth": 1, "scan": False, "context": 40})
    config.batch_size = 2
    return config
"""
RENDERER = """
from configs import autoencoder


def get_config(size):
    return autoencoder.get_config("tiny")
"""


def test_rows_of_other_runs_stay_and_a_config_that_fails_keeps_nobody_waiting(tmp_path):
    configs, table = tmp_path / "configs", tmp_path / "scale.md"
    configs.mkdir()
    (configs / "autoencoder.py").write_text(RENDERER)
    (configs / "motion.py").write_text(MOTION)
    (configs / "video.py").write_text('SLICES = {"tiny": "cpu:none"}\n')
    earlier = f"| {configs}/video.py:tiny | 1 x cpu |\n"
    table.write_text(f"{earlier}| {configs}/removed.py:tiny | 1 x cpu |\n")
    command = (sys.executable, "-m", "xactor_jax.planning.scale")
    result = subprocess.run(
        [*command, f"--configs={configs}", f"--output={table}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    assert result.returncode == 2
    use = "--topology=cpu:none: use cpu:COUNT, such as cpu:8"
    assert result.stderr.splitlines() == [
        f"error: {configs}/motion.py:absent: {use}",
        f"error: {configs}/video.py:tiny: {use}",
        "error: 2 of 3 configs could not be planned",
    ]
    rows = [line for line in table.read_text().splitlines(keepends=True) if ".py:" in line]
    assert [row.split(" | ")[0] for row in rows] == [
        f"| {configs}/motion.py:small",
        f"| {configs}/video.py:tiny",
    ]
    assert rows[1] == earlier
