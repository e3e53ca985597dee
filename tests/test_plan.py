"""The command, as a user runs it."""

import json
import subprocess
import sys

import pytest

from xactor_jax.errors import InputError
from xactor_jax.plan import flags, read_config, start

WIDTH = 64
SMALL = [
    f"motion.width={WIDTH}",
    "motion.depth=2",
    "motion.scan=True",
    "motion.context=40",
    "batch_size=8",
]


def plan(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "xactor_jax.plan", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_plan_of_simulated_devices(tmp_path):
    output = tmp_path / "plan.json"
    arguments = ("--topology=cpu:8", "--set", *SMALL, "mesh.fsdp=4", "mesh.context=2")
    result = plan("--config=configs/motion.py:tiny", *arguments, f"--output={output}")
    assert result.returncode == 0, result.stderr
    found = json.loads(output.read_text())
    assert found["mesh"] == {"replica": 1, "fsdp": 4, "context": 2, "tensor": 1}
    kinds = found["bytes_by_kind"]
    # The average and two moments lie as the parameters do; small tensors are not split.
    assert 4 * found["learnt"] / 4 < kinds["parameters"] < 4 * found["learnt"] / 2
    assert kinds["averaged parameters"] == kinds["parameters"]
    assert kinds["optimizer"] == pytest.approx(2 * kinds["parameters"], rel=1e-3)
    assert found["fits"] and found["bytes_per_chip"] < found["chip_memory"]
    assert found["bytes_per_chip"] >= sum(kinds.values())
    # Two tokens a frame, each through 2 x (4 + 2 + 8) x width^2 numbers and more, three times.
    tokens = 8 * 40 * 2
    assert found["flops_per_step"] > 6 * tokens * 2 * 14 * WIDTH**2
    assert found["collectives"]["all-reduce"]["count"] > 0
    assert found["roofline_seconds"] == max(found["roofline"].values()) > 0
    assert "fits" in result.stdout and "all-reduce" in result.stdout
    assert found["largest_batch"] is None and "--largest_batch searches it" in result.stdout


@pytest.mark.libtpu
@pytest.mark.slow
def test_a_slice_that_does_not_fit_says_by_how_much_and_what_to_change(tmp_path):
    output = tmp_path / "plan.json"
    arguments = ("--topology=v5e:2x4", "--set", *SMALL, "motion.width=16384", "motion.depth=12")
    result = plan("--config=configs/motion.py:tiny", *arguments, f"--output={output}")
    assert result.returncode == 0, result.stderr
    found = json.loads(output.read_text())
    assert not found["fits"] and found["bytes_per_chip"] > found["chip_memory"]
    assert "GiB of each device are missing" in result.stdout
    assert "motion.rematerialise=True" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config"),
        (["--config=absent.py"], "absent.py: cannot read this config file"),
        (["--config=configs"], "can't find '__main__' module"),
        (["--config=configs/motion.py:huge"], "use tiny or full"),
        (["--config=configs/motion.py:tiny", "--set", "mesh.fspd=8"], "fspd"),
        (["--config=configs/motion.py:tiny", "--set", "batch_size"], "FIELD=VALUE"),
        (["--config=configs/motion.py:tiny", "--set", "batch_size=many"], "batch_size=many"),
        (["--config=configs/motion.py:tiny", "--topology=cpu:none"], "cpu:COUNT"),
        (["--config=configs/motion.py:tiny", "--slices=0"], "at least 1"),
    ],
)
def test_bad_flags_are_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        chosen = flags(arguments)
        read_config(chosen.config, chosen.set)
        start(chosen.topology)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ("motion", "optimizer.accumulate=3", "config.batch_size=16 must be a multiple of replica"),
        ("autoencoder", "renderer.from_reference=False", "RendererConfig: warps_reference needs"),
    ],
)
def test_fields_that_do_not_go_together_are_one_line(config, change, message):
    result = plan(f"--config=configs/{config}.py:tiny", "--topology=cpu:1", "--set", change)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("slice_name", ["v9:2x2", "v5e:3x5"])
def test_the_command_ends_with_one_line_and_code_2(slice_name):
    result = plan("--config=configs/motion.py:tiny", f"--topology={slice_name}")
    assert (result.returncode, result.stdout) == (2, "")
    # Without libtpu the second one asks for it.
    assert result.stderr.startswith(f"error: --topology={slice_name}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        # Eleven devices divide neither 16 examples, nor 14 chunks, and more than tensor may have.
        (16, "no mesh divides this batch; change batch_size\n"),
        # They divide eleven examples, but none of the tensors that are large enough to need it.
        (11, "no mesh is possible; fsdp=11: no axis of params/"),
    ],
)
def test_a_sweep_without_a_possible_mesh_ends_with_one_line_and_code_2(batch_size, message):
    arguments = ("--topology=cpu:11", "--sweep", "--renderer=configs/autoencoder.py:tiny")
    change = ("--set", f"batch_size={batch_size}", "motion.width=320")
    result = plan("--config=configs/motion.py:tiny", *arguments, *change)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_mesh_that_the_model_cannot_have(tmp_path):
    output = tmp_path / "plan.json"
    # Three divide the batch, but none of the tensors that are large enough to need it.
    model = ("motion.width=320", "motion.depth=1", "motion.context=20", "motion.scan=False")
    result = plan(
        *("--config=configs/motion.py:tiny", "--renderer=configs/autoencoder.py:tiny", "--sweep"),
        *("--topology=cpu:3", "--set", "batch_size=3", *model, f"--output={output}"),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(output.read_text())
    by_axis = {max(one["mesh"], key=one["mesh"].get): one for one in found["sweep"]}
    assert by_axis.keys() == {"fsdp", "tensor"}
    assert "divides by config.mesh.fsdp=3" in by_axis["fsdp"]["impossible"]
    assert found["mesh"]["tensor"] == 3 and by_axis["tensor"]["fits"]
    assert "impossible" in result.stdout and "best: tensor=3" in result.stdout
