"""The launch scripts, with stand-ins for the programs of a cluster."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from multiprocess.processes import until

ROOT = Path(__file__).parents[2]
SCRIPTS = ["launch/tpu_vm.sh", "launch/again.sh", "launch/slurm.sbatch", ".ci/run"]
# What srun(1) does with tasks that end in turn, each after so many seconds with its code.
SRUN = """#!{python}
import itertools
import os
import subprocess
import sys

options = list(itertools.takewhile(lambda word: word.startswith("--"), sys.argv[1:]))
command = sys.argv[1 + len(options):]
options = dict(word.partition("=")[::2] for word in options)
patience = float(options.get("--wait", 0)) or float("inf")
if {ends}[0][1] and options["--kill-on-bad-exit"] != "0":
    patience = 0


def task(code):
    return subprocess.run(command, env=os.environ | {{"CODE": str(code)}}).returncode


sys.exit(max(task(code) if seconds <= patience else 137 for seconds, code in {ends}))
"""
FLAGS = [
    "--config=configs/motion.py:full",
    "--config.data.folders=('a b', \"c\")",
    "--workdir=$HOME/x",
]


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(0o755)


def launch(script, *arguments, bin=None, cwd=ROOT, **variables):
    return subprocess.run(
        ["bash", ROOT / "launch" / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", **variables},
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    found = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), ROOT / script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.fixture
def cloud(tmp_path):
    """A folder with a `gcloud` that notes its arguments and runs a remote command in `host`."""
    host = tmp_path / "host" / "xactor_jax"
    program(host / ".venv/bin/python", 'printf "%s\\n" "$@" > given\nmv given arguments\n')
    program(host / "launch/again.sh", (ROOT / "launch/again.sh").read_text())
    program(
        tmp_path / "bin" / "gcloud",
        f'printf "%q " "$@" >> {tmp_path}/calls; echo >> {tmp_path}/calls\n'
        f'command="${{@: -1}}"\ncase $command in\n--command=*)\n'
        f'    cd {host.parent}\n    bash -c "${{command#--command=}}"\n    ;;\n'
        "*value*) echo ACTIVE ;;\nesac\n",
    )
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [
        (
            ["create", "mine", "us-west4-a", "v5litepod-16", "--spot"],
            [
                "compute tpus queued-resources create mine --zone=us-west4-a --node-id=mine "
                "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot",
                "compute tpus queued-resources describe mine --zone=us-west4-a "
                "--format='value(state.state)'",
            ],
        ),
        (
            ["follow", "mine", "us-west4-a"],
            [
                "compute tpus tpu-vm ssh mine --zone=us-west4-a --worker=0 "
                "--command='tail -n 100 -F xactor_jax/training.log'"
            ],
        ),
        (
            ["delete", "mine", "us-west4-a"],
            ["compute tpus queued-resources delete mine --zone=us-west4-a --force --quiet"],
        ),
    ],
)
def test_a_dry_run_prints_what_would_be_executed_and_executes_nothing(cloud, arguments, commands):
    result = launch("tpu_vm.sh", "--dry-run", *arguments, bin=cloud / "bin")
    assert result.returncode == 0, result.stderr
    printed = [shlex.split(line) for line in result.stdout.splitlines()]
    assert printed == [["gcloud", *shlex.split(command)] for command in commands]
    assert not (cloud / "calls").exists()


def test_a_slice_is_created_and_all_its_hosts_installed(cloud):
    result = launch("tpu_vm.sh", "create", "mine", "zone", "v6e-16", bin=cloud / "bin")
    assert (result.returncode, result.stdout) == (0, "mine is ACTIVE\n")
    printed = launch("tpu_vm.sh", "--dry-run", "install", "mine", "zone", bin=cloud / "bin").stdout
    words = shlex.split(printed)
    assert words.count("--worker=all") == 3
    # Everything that is copied is there.
    copied = words[words.index("scp") + 4 : words.index("mine:xactor_jax")]
    assert "xactor_jax" in copied and all((ROOT / name).exists() for name in copied)


def test_the_flags_of_a_training_reach_every_host_as_they_are(cloud):
    result = launch("tpu_vm.sh", "run", "mine", "zone", *FLAGS, bin=cloud / "bin")
    assert result.returncode == 0, result.stderr
    assert "--worker=all" in (cloud / "calls").read_text()
    found = cloud / "host" / "xactor_jax" / "arguments"
    with subprocess.Popen(["sleep", "60"]) as patience:
        assert until(found.exists, patience)
        patience.kill()
    assert found.read_text().splitlines() == [
        "-m",
        "xactor_jax.main",
        "--distributed",
        "--maintenance_events",
        "--stopped_exit_code=75",
        *FLAGS,
    ]


def test_a_stop_reaches_what_repeats_the_training_first_and_then_the_training(cloud):
    program(cloud / "bin" / "pkill", f'printf "%s\n" "${{@: -1}}" >> {cloud}/patterns\n')
    result = launch("tpu_vm.sh", "stop", "mine", "zone", bin=cloud / "bin")
    assert result.returncode == 0, result.stderr
    [call] = (cloud / "calls").read_text().splitlines()
    words = shlex.split(call)
    assert "--worker=all" in words
    repeats, trains = (cloud / "patterns").read_text().splitlines()
    training = ".venv/bin/python -m xactor_jax.main --distributed"
    assert re.search(repeats, f"bash launch/again.sh {training}")
    assert re.search(trains, training) and not re.search(repeats, training)
    # The shell that looks for them is not found, or it would end itself before the training.
    assert not any(re.search(pattern, words[-1]) for pattern in (repeats, trains))


@pytest.mark.parametrize("arguments", [[], ["run", "name"], ["dance", "name", "zone"]])
def test_wrong_arguments_show_the_usage(arguments):
    result = launch("tpu_vm.sh", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "launch/tpu_vm.sh create NAME ZONE" in result.stderr


@pytest.mark.parametrize(
    ("codes", "end", "times"),
    [
        ((1, 134, 0), 0, 3),
        ((2, 0), 2, 1),
        ((1,) * 12, 1, 10),
        ((*(1, 75) * 9, *(75,) * 9, 0), 0, 28),
    ],
    ids=["in the end well", "bad input", "never well", "planned stops do not count"],
)
def test_a_command_is_repeated_until_it_ends_well_or_cannot(tmp_path, codes, end, times):
    program(
        tmp_path / "training",
        f"echo >> {tmp_path}/runs\ncodes=({' '.join(map(str, codes))})\n"
        f'exit "${{codes[$(wc -l < {tmp_path}/runs) - 1]}}"\n',
    )
    result = launch("again.sh", tmp_path / "training", PAUSE="0")
    assert result.returncode == end
    assert (tmp_path / "runs").read_text() == "\n" * times


@pytest.mark.parametrize(
    ("codes", "again"),
    [
        ([0], False),
        ([2], False),
        ([75] * 12, True),
        ([*[75] * 12, 137], True),
        ([*[137, 75] * 9, 137], True),
        ([*[137, 75] * 10, 137], False),
    ],
)
def test_a_slurm_job_queues_itself_again_until_the_training_is_done(tmp_path, codes, again):
    program(tmp_path / "scontrol", f'echo "$@" >> {tmp_path}/queue\n')
    for restarts, code in enumerate(codes):
        program(tmp_path / "srun", f'printf "%s\n" "$@" > {tmp_path}/given\nexit {code}\n')
        variables = {"SLURM_CPUS_PER_TASK": "8", "SLURM_JOB_ID": "7"}
        variables |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        result = launch("slurm.sbatch", *FLAGS, bin=tmp_path, cwd=tmp_path, **variables)
        assert result.returncode == code, result.stderr
    assert (tmp_path / "given").read_text().splitlines()[-3:] == FLAGS
    queue = (tmp_path / "queue").read_text() if (tmp_path / "queue").exists() else ""
    assert queue == "requeue 7\n" * (len(codes) - 1 + again)


@pytest.mark.parametrize(
    ("ends", "code", "again", "failures"),
    [
        ([(0, 75), (20, 75)], 75, True, 0),
        ([(0, 2), (5, 2)], 2, False, 0),
        ([(0, 2), (10**6, 0)], 2, False, 0),
        ([(0, 0), (20, 0)], 0, False, 0),
        ([(0, 134), (10**6, 0)], 137, True, 1),
    ],
    ids=[
        "planned stop",
        "bad input of all",
        "bad input of one and the others wait for it",
        "done",
        "one is lost and the others wait for it",
    ],
)
def test_tasks_of_a_slurm_job_have_time_to_leave_but_not_for_ever(
    tmp_path, ends, code, again, failures
):
    program(tmp_path / "scontrol", f'echo "$@" >> {tmp_path}/queue\n')
    program(tmp_path / "srun", "")
    (tmp_path / "srun").write_text(SRUN.format(python=sys.executable, ends=ends))
    program(tmp_path / ".venv" / "bin" / "python", 'exit "$CODE"\n')
    variables = {"SLURM_CPUS_PER_TASK": "8", "SLURM_JOB_ID": "7"}
    result = launch("slurm.sbatch", *FLAGS, bin=tmp_path, cwd=tmp_path, **variables)
    assert result.returncode == code, result.stderr
    assert (tmp_path / "queue").exists() == again
    counted = tmp_path / "runs" / "failures-of-job-7"
    assert (len(counted.read_text().splitlines()) if counted.exists() else 0) == failures
