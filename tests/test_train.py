"""The loop on a linear regression, whose loss, gradient and solution have a closed form.

Run as a program this file is the other process of the tests that need one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from linear_regression import INPUTS, TRUTH, LinearTask, lines, make_config, saved

from xactor_jax.checkpoint import Checkpoints, load_weights, save_weights
from xactor_jax.data.pipeline import LocalBatches
from xactor_jax.errors import InputError
from xactor_jax.train import train


def assert_same_training(one, other, step=6):
    (state, meta), (other_state, other_meta) = saved(one, step), saved(other, step)
    leaves = jax.tree.leaves(state)
    # step, params, ema, two moments and three counters of the optimiser: nothing is left out.
    assert len(leaves) >= 1 + 2 + 2 + 4
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
    assert meta["batches"] == other_meta["batches"]

    def losses(workdir):
        return [(line["step"], line["loss"]) for line in lines(workdir)]

    assert losses(one) == losses(other)


def child(*arguments, check=True):
    result = subprocess.run(
        [sys.executable, "-W", "error", __file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of six uninterrupted steps."""
    workdir = tmp_path_factory.mktemp("whole")
    assert train(make_config(), LinearTask(), workdir) == 6
    return workdir


def test_a_training_leaves_what_it_promises(whole):
    assert [line["step"] for line in lines(whole)] == [1, 2, 3, 4, 5, 6]
    first, last = lines(whole)[1], lines(whole)[-1]
    assert {"step", "loss", "grad_norm", "learning_rate", "samples_per_second"} <= set(first)
    assert "largest_error" in first
    assert ["evaluate/distance" in line for line in lines(whole)] == [False, False, True] * 2
    assert last["evaluate/distance"] < lines(whole)[2]["evaluate/distance"]
    # Updates before steps 1, 2, 3: 0, 1 and 2 of 2 of the warm-up.
    rates = [line["learning_rate"] for line in lines(whole)[:3]]
    assert rates == pytest.approx([0, 0.5e-2, 1e-2])
    samples = sorted(path.name for path in (whole / "samples").iterdir())
    assert samples == ["step_00000003", "step_00000006"]
    params, metadata = load_weights(whole / "model.safetensors")
    assert metadata == {"kind": "linear"}
    np.testing.assert_array_equal(
        params["layer"]["kernel"], saved(whole, 6)[0]["ema"]["layer"]["kernel"]
    )


def test_the_first_loss_is_the_closed_form(tmp_path):
    start = {"layer": {"kernel": np.zeros((64, 64), np.float32), "bias": np.ones(64, np.float32)}}
    save_weights(tmp_path / "start", start, {})
    config = make_config(
        **{"steps": 3, "batch_size": 32, "initial_weights": str(tmp_path / "start")}
    )
    train(config, LinearTask(noise=0.0), tmp_path)
    error = 1 - INPUTS.astype(float) @ TRUTH
    gradients = (2 * INPUTS.T @ error / error.size, 2 * error.sum(0) / error.size)
    # float32 sums of 2048 terms: one part in 1e5.
    assert lines(tmp_path)[0]["loss"] == pytest.approx(np.mean(error**2), rel=1e-5)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    assert lines(tmp_path)[0]["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_the_solution_is_found(tmp_path):
    config = make_config(
        **{
            "steps": 150,
            "log_every": 50,
            "save_every": 1000,
            "evaluate_every": 1000,
            "batch_size": 32,
            "optimizer.learning_rate": 1e-1,
            "optimizer.weight_decay": 0.0,
        }
    )
    train(config, LinearTask(noise=1.0), tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [50, 100, 150]
    kernel = load_weights(tmp_path / "model.safetensors")[0]["layer"]["kernel"]
    # Noisy inputs span the space, so that the truth is the only solution; its entries are about 1.
    assert np.abs(kernel - TRUTH).mean() < 0.02


def test_sigterm_saves_and_the_same_command_ends_at_the_same_bits(whole, tmp_path):
    config = make_config(save_every=100)
    task = LinearTask(at_evaluation=lambda: signal.raise_signal(signal.SIGTERM))
    # It came while the loop evaluated after step 3, and is noticed before the step after next.
    assert train(config, task, tmp_path) == 4
    assert (tmp_path / "model.safetensors").exists()
    assert train(config, LinearTask(), tmp_path) == 6
    assert_same_training(tmp_path, whole)


def test_a_training_keeps_to_what_it_measured_at_first(whole, tmp_path):
    stopping = LinearTask(at_evaluation=lambda: signal.raise_signal(signal.SIGTERM))
    assert train(make_config(save_every=100), stopping, tmp_path) == 4
    changed = LinearTask()
    changed.frozen = {"truth": TRUTH + 1}  # as clips that were added change it
    assert train(make_config(save_every=100), changed, tmp_path) == 6
    assert_same_training(tmp_path, whole)


def test_another_order_of_the_data_is_said_when_a_training_goes_on(tmp_path, caplog):
    stopping = LinearTask(at_evaluation=lambda: signal.raise_signal(signal.SIGTERM))
    assert train(make_config(), stopping, tmp_path) == 4
    changed = LinearTask()
    changed.source = lambda: range(24)
    assert train(make_config(seed=5), changed, tmp_path) == 6
    assert "examples: 24 now, 32 before" in caplog.text
    assert "seed: 5 now, 4 before" in caplog.text


def test_a_killed_training_ends_at_the_same_bits(whole, tmp_path):
    result = child("killed", tmp_path, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "los')
    assert train(make_config(save_every=2), LinearTask(), tmp_path) == 6
    assert_same_training(tmp_path, whole)
    assert load_weights(tmp_path / "model.safetensors")[1] == {"kind": "linear"}


def test_room_for_the_checkpoint_alone_is_not_enough(whole, tmp_path, monkeypatch):
    """The weights are written beside it."""
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(saved(whole, 6)[0]))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=state))
    with pytest.raises(InputError, match=r"a save needs .*there is no checkpoint yet; make room"):
        train(make_config(), LinearTask(), tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_finished_training_is_left_as_it_is(whole, tmp_path):
    before = lines(whole)
    assert train(make_config(), LinearTask(), whole) == 6
    assert lines(whole) == before
    with pytest.raises(InputError, match=r"is at step 6, beyond config\.steps=5"):
        train(make_config(steps=5), LinearTask(), whole)


def test_slices_of_a_batch_equal_the_whole_batch(tmp_path):
    for slices in (1, 4):
        config = make_config(**{"optimizer.accumulate": slices})
        task = LinearTask(noise=0.0)
        train(config, task, tmp_path / str(slices))
    one, four = (saved(tmp_path / name, 6)[0]["params"] for name in "14")
    # Another order of float32 sums, which Adam's division amplifies a little.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, four)
    losses = [[line["loss"] for line in lines(tmp_path / name)] for name in "14"]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    config = make_config(steps=40, save_every=1, log_every=1)
    with pytest.raises(InputError, match=r"step \d+: .*loss is inf.*(last|no) checkpoint"):
        train(config, LinearTask(nan_at=7), tmp_path)
    good = [line["step"] for line in lines(tmp_path)]
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest() == (good[-1] if good else None)
    if good:
        state, _ = saved(tmp_path, good[-1])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_steps_that_are_not_finite_are_skipped_when_told_to(tmp_path):
    task = LinearTask(nan_at=7)
    order = {"batch_size": 8, "rows": range(8), "seed": 4, "threads": 1}
    batches = LocalBatches(range(32), task.load, **order)
    broken = sum(bool(next(batches)["broken"].any()) for _ in range(10))
    assert broken in (2, 3)  # two and a half epochs
    config = make_config(steps=10, skip_nonfinite=broken)
    assert train(config, task, tmp_path / "enough") == 10
    state, meta = saved(tmp_path / "enough", 10)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert lines(tmp_path / "enough")[-1]["skipped_steps"] == meta["totals"]["skipped"] == broken
    # Adam has counted the others alone.
    assert int(state["opt_state"][1][0]["count"]) == 10 - broken
    # So has its schedule: a cosine over the eight steps after the warm-up.
    rates = [line["learning_rate"] for line in lines(tmp_path / "enough") if "loss" in line]
    expected = 1e-2 * (1 + np.cos(np.pi * (10 - broken - 1 - 2) / 8)) / 2
    assert rates[-1] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match=f"loss is inf.*after {broken - 1} such steps"):
        train(make_config(steps=10, skip_nonfinite=broken - 1), task, tmp_path / "too few")


def test_steps_are_traced_on_request_and_measured_against_a_known_peak(tmp_path, monkeypatch):
    monkeypatch.setattr("xactor_jax.train.peak_arithmetic", lambda device: 1e18)
    train(make_config(steps=14, profile_steps=2), LinearTask(), tmp_path)
    [trace] = (tmp_path / "profile").rglob("*.xplane.pb")
    profile = jax.profiler.ProfileData.from_file(str(trace))
    steps = 0
    for plane in profile.planes:
        for line in plane.lines:
            steps += sum(event.name == "train" for event in line.events)
    assert steps == 2
    assert 0 < lines(tmp_path)[-1]["flops_utilisation"] < 1e-3


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"kernel": np.zeros((64, 64))}, "lacks layer/bias"),
        ({"kernel": np.zeros((64, 32)), "bias": np.zeros(64)}, r"layer/kernel as \[64, 32\]"),
        (
            {"kernel": np.zeros((64, 64)), "bias": np.zeros(64), "gain": np.zeros(1)},
            "has layer/gain, which this config lacks",
        ),
    ],
)
def test_initial_weights_of_another_network_are_named(tmp_path, layer, message):
    save_weights(tmp_path / "start", {"layer": layer}, {})
    with pytest.raises(InputError, match=message):
        train(make_config(initial_weights=str(tmp_path / "start")), LinearTask(), tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"log_every": 0},
        {"batch_size": 9, "optimizer.accumulate": 2},
        {"optimizer.accumulate": 0},
        {"seed": -1},
        {"weights_dtype": "fp16"},
        {"keep_last": 0},
        {"save_every": 3, "keep_every": 4},
    ],
)
def test_a_config_that_cannot_work_is_an_input_error(tmp_path, changes):
    with pytest.raises(InputError, match=r"config\."):
        train(make_config(**changes), LinearTask(), tmp_path)


def test_a_workdir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--workdir=.*/file/run: cannot be made \(Not a dir"):
        train(make_config(), LinearTask(), tmp_path / "file" / "run")


def test_eight_devices_train_as_one_and_hand_over(whole, tmp_path):
    result = json.loads(child("devices", tmp_path).stdout)
    expected = [line["loss"] for line in lines(whole)]
    # float32 sums in another order: one part in 1e5, over six steps of Adam.
    for name in ("split", "handed over"):
        np.testing.assert_allclose(result[name], expected, rtol=2e-5)
    assert result["specs"] == [["fsdp"], []]
    # One device goes on where eight were stopped after three steps.
    assert train(make_config(), LinearTask(), tmp_path / "to one") == 6
    losses = [line["loss"] for line in lines(tmp_path / "to one")]
    np.testing.assert_allclose(losses, expected, rtol=2e-5)


def killed(workdir):
    """Train with a checkpoint every two steps and die while the second one is being written."""
    calls = []

    def die():
        calls.append(None)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    # The loop exports right after it has started to save.
    train(make_config(save_every=2), LinearTask(at_export=die), workdir)


def devices(workdir):
    """Train on 8 devices: split 8 ways; split, stopped, and on as 2 x 2 x 2; split and stopped."""
    jax.config.update("jax_num_cpu_devices", 8)
    layouts = []

    class Watching(LinearTask):
        def export(self, params, frozen, path):
            super().export(params, frozen, path)
            layouts[:] = [list(params["layer"][name].sharding.spec) for name in ("kernel", "bias")]

    train(make_config(), Watching(), workdir / "split")
    stop = {"at_evaluation": lambda: signal.raise_signal(signal.SIGTERM)}
    for name in ("handed over", "to one"):
        train(make_config(), LinearTask(**stop), workdir / name)
    mixed = {"mesh.replica": 2, "mesh.fsdp": 2, "mesh.context": 2}
    train(make_config(**mixed), LinearTask(), workdir / "handed over")
    names = ("split", "handed over")
    losses = {name: [line["loss"] for line in lines(workdir / name)] for name in names}
    print(json.dumps({**losses, "specs": layouts}))


if __name__ == "__main__":
    name, folder, *rest = sys.argv[1:]
    {"killed": killed, "devices": devices}[name](Path(folder), *rest)
