"""The table of what every config needs, of a folder with small ones."""

import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

from xactor_jax.planning.scale import documented, row

TABLE = Path("docs/scale.md")
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


def test_rows_of_other_runs_stay_and_what_fails_or_does_not_fit_keeps_nobody_waiting(tmp_path):
    configs, table = tmp_path / "configs", tmp_path / "scale.md"
    configs.mkdir()
    (configs / "autoencoder.py").write_text(RENDERER)
    (configs / "motion.py").write_text(MOTION)
    (configs / "video.py").write_text('SLICES = {"tiny": "cpu:none"}\n')
    earlier = f"| {configs}/video.py:tiny | 1 x cpu | **does not fit** |\n"
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
        "error: 2 of 3 configs could not be planned; too large for the slices that their files "
        f"name: {configs}/video.py:tiny",
    ]
    rows = [line for line in table.read_text().splitlines(keepends=True) if ".py:" in line]
    assert [line.split(" | ")[0] for line in rows] == [
        f"| {configs}/motion.py:small",
        f"| {configs}/video.py:tiny",
    ]
    assert "does not fit" not in rows[0] and rows[1] == earlier


def test_a_row_says_whether_its_config_fits():
    plan = {
        **{"devices": 8, "device": "v5e", "mesh": {"fsdp": 8}, "batch_size": 16, "fits": False},
        **{"parameters": 10**9, "bytes_per_chip": 17 * 2**30, "chip_memory": 16 * 2**30},
        **{"flops_per_step": 1e15, "roofline_seconds": None},
    }
    assert "17.00 GiB | **does not fit** |" in row("large", plan)
    assert "17.00 GiB | 18.00 GiB |" in row(
        "large", {**plan, "chip_memory": 18 * 2**30, "fits": True}
    )


def rows_of_the_docs():
    """Cells of the table, by the names of its columns."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    header, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def in_bytes(text):
    number, unit = text.split()
    return float(number) * {"MiB": 2**20, "GiB": 2**30}[unit]


def devices_of(topology):
    """Such as (16, "v5e") of "v5e:4x4"; a chip of tpu7x is two devices."""
    kind, sides = topology.split(":")
    return math.prod(map(int, sides.split("x"))) * (2 if kind == "tpu7x" else 1), kind


def test_every_config_has_a_row_and_fits_the_slice_that_its_file_names():
    rows = rows_of_the_docs()
    assert [cells["config"] for cells in rows] == list(documented(Path("configs")))
    for cells in rows:
        path, size = cells["config"].split(":")
        file = runpy.run_path(path)
        count, kind = devices_of(file["SLICES"][size])
        assert cells["devices"] == f"{count} x {kind}", cells["config"]
        assert int(cells["batch"]) == file["get_config"](size).batch_size, cells["config"]
        assert "does not fit" not in cells["of"], cells["config"]
        assert in_bytes(cells["memory"]) < in_bytes(cells["of"]), cells["config"]
