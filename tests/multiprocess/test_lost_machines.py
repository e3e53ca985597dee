"""Two processes, killed and started again, end where an undisturbed training ends.

Two devices of each, or four of one, average the gradient in another order than the one device of
the undisturbed training, in float32; Adam lets that grow with the number of steps.
"""

import random
import signal

import jax
import numpy as np
import pytest
from linear_regression import LinearTask, lines, make_config, saved
from multiprocess.processes import end_of, start, until

from xactor_jax.train import train


def last_step(workdir):
    if not (workdir / "metrics.jsonl").exists():
        return 0
    whole = (workdir / "metrics.jsonl").read_text().rpartition("\n")[0]
    return len(whole.splitlines())


def is_saving(workdir):
    return any((workdir / "checkpoints").glob("*-tmp*"))


def kill(victim, processes):
    """What kill -9 does to one, and a launcher then to the others, which wait for its heartbeat."""
    for process in [processes[victim], *processes]:
        process.kill()
    codes, _ = end_of(processes)
    assert codes == [-signal.SIGKILL] * len(processes)


def assert_undisturbed(workdir, elsewhere, step):
    """That checkpoint and losses at `step` are those of one process that nobody stopped."""
    train(
        make_config(
            **{
                "steps": step,
                "evaluate_every": 10**6,
                "save_every": step,
                "optimizer.schedule": "constant",
            }
        ),
        LinearTask(),
        elsewhere,
    )
    (state, meta), (expected, expected_meta) = saved(workdir, step), saved(elsewhere, step)
    assert meta["batches"] == expected_meta["batches"]
    for part in ("params", "ema"):
        for name, array in expected[part]["layer"].items():
            np.testing.assert_allclose(state[part]["layer"][name], array, rtol=1e-3, atol=1e-5)
    losses, expected_losses = (
        [(line["step"], line["loss"]) for line in lines(folder)] for folder in (workdir, elsewhere)
    )
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)


def test_a_process_is_killed_in_a_save_then_both_are_asked_to_stop_and_one_goes_on(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    processes = start(2, workdir)
    assert until(lambda: last_step(workdir) >= 5 and is_saving(workdir), processes[0])
    kill(1, processes)

    processes = start(2, workdir)
    reached = last_step(workdir)
    assert until(lambda: last_step(workdir) > reached + 2, processes[0])
    processes[1].send_signal(signal.SIGINT)  # Ctrl-C, which becomes the SIGTERM of a scheduler
    codes, outputs = end_of(processes)
    assert codes == [0, 0], (workdir / "errors_0").read_text()
    step = last_step(workdir)
    assert f"\nstep {step} of 1000000; the same command continues: " in outputs[0]

    config = make_config(
        **{"steps": step + 3, "evaluate_every": 10**6, "optimizer.schedule": "constant"}
    )
    assert train(config, LinearTask(), workdir) == step + 3
    assert_undisturbed(workdir, tmp_path / "undisturbed", step + 3)


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    draw = random.Random(8)
    in_a_save = 0
    for kills in range(10):
        # On two processes, then on another mesh, where both read all rows, then on one process.
        context = 4 if kills % 3 == 1 else 1
        count = 1 if kills % 3 == 2 else 2
        processes = start(count, workdir, f"--config.mesh.context={context}")
        step = last_step(workdir) + draw.randint(2, 9)
        in_save = draw.random() < 0.5

        def moment(step=step, in_save=in_save):
            return last_step(workdir) >= step and (is_saving(workdir) or not in_save)

        assert until(moment, processes[0]), (workdir / "errors_0").read_text()
        kill(draw.randrange(len(processes)), processes)
        in_a_save += is_saving(workdir)
    assert in_a_save > 0
    names = [folder.name for folder in (workdir / "checkpoints").iterdir()]
    last = max(int(name) for name in names if name.isdecimal())
    codes, _ = end_of(start(2, workdir, f"--config.steps={last + 20}"))
    assert codes == [0, 0]
    assert_undisturbed(workdir, tmp_path / "undisturbed", last + 20)


@pytest.mark.slow
def test_two_processes_that_were_killed_end_at_the_same_bits_as_two_that_were_not(tmp_path):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    killed.mkdir()
    undisturbed.mkdir()
    processes = start(2, killed)
    assert until(lambda: last_step(killed) >= 6 and is_saving(killed), processes[0])
    kill(0, processes)
    assert last_step(killed) < 40
    for workdir in (killed, undisturbed):
        assert end_of(start(2, workdir, "--config.steps=40"))[0] == [0, 0]
    ends = (saved(workdir, 40)[0] for workdir in (killed, undisturbed))
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_whoever_is_left_alone_does_not_wait_for_ever(tmp_path, victim):
    workdir = tmp_path / "run"
    workdir.mkdir()
    processes = start(2, workdir)
    assert until(lambda: last_step(workdir) >= 2, processes[0])
    processes[victim].kill()
    codes, _ = end_of(processes)
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] not in (0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("writer", [0, 1])
def test_two_processes_agree_on_what_is_damaged(tmp_path, writer):
    workdir = tmp_path / "run"
    workdir.mkdir()
    assert end_of(start(2, workdir, "--config.steps=8"))[0] == [0, 0]
    files = (workdir / "checkpoints" / "8" / "state" / f"ocdbt.process_{writer}" / "d").iterdir()
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    codes, _ = end_of(start(2, workdir, "--config.steps=12"))
    assert codes == [0, 0]
    assert (
        f"checkpoint {workdir / 'checkpoints' / '8'} is damaged"
        in (workdir / "errors_0").read_text()
    )
    assert (workdir / "checkpoints_damaged" / "8").is_dir()
    assert_undisturbed(workdir, tmp_path / "undisturbed", 12)
