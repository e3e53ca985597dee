"""One process alone, or what happens to one of two alone and what the other then does."""

import numpy as np
import pytest
from linear_regression import TRUTH, LinearTask, make_config
from multiprocess.processes import end_of, linear, start

from xactor_jax.checkpoint import load_weights
from xactor_jax.train import train


def ended(workdir, *flags, count=2, **options):
    """Exit codes of a training, and what the processes have said last."""
    workdir.mkdir(exist_ok=True)
    codes, _ = end_of(start(count, workdir, *flags, **options))
    said = [(workdir / f"errors_{number}").read_text() for number in range(count)]
    return codes, [text.strip().rpartition("\n")[2] for text in said]


def test_one_that_has_joined_nobody_else_stops_when_asked_before_its_first_step(tmp_path):
    early = {"training": linear("stopped_early"), "joined": True}
    codes, said = ended(tmp_path, "--stopped_exit_code=75", count=1, **early)
    assert codes == [75], said
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.slow
def test_two_that_measure_differently_train_with_what_the_first_has_measured(tmp_path):
    measured = {"training": linear("measured_apart")}
    codes, said = ended(tmp_path, "--config.steps=4", **measured)
    assert codes == [0, 0], said
    np.testing.assert_array_equal(load_weights(tmp_path / "frozen.safetensors")[0]["truth"], TRUTH)


@pytest.mark.slow
def test_weights_that_one_cannot_write_end_both(tmp_path):
    path = tmp_path / "model.safetensors"
    path.mkdir()
    codes, said = ended(tmp_path)
    assert codes == [2, 2], said
    assert said[0].startswith("error: ") and "Is a directory" in said[0]
    assert said[1] == f"error: {path}: cannot be written by another process, which says why"


@pytest.mark.slow
def test_a_save_that_fails_for_one_ends_both(tmp_path):
    workdir = tmp_path / "run"
    two_saves = {"steps": 8, "save_every": 4, "optimizer.schedule": "constant"}
    train(make_config(**two_saves), LinearTask(), workdir)
    # The third removes the first, which on the first process alone is then refused.
    oldest = workdir / "checkpoints" / "4"
    oldest.symlink_to(oldest.rename(tmp_path / "elsewhere"))
    codes, said = ended(workdir)
    assert codes == [2, 2], said
    third = f"error: checkpoint {workdir / 'checkpoints' / '12'} could not be written"
    assert said[0].startswith(f"{third} (OSError: ")
    assert said[1] == f"{third} by another process, which says why"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "code", "line"),
    [
        ("unreadable_for_one", 2, "error: clip 7: cannot be read"),
        ("broken_for_one", 1, "ZeroDivisionError: a fault of the program"),
    ],
)
def test_an_error_of_one_is_its_exit_code_and_does_not_hold_the_other_for_ever(
    tmp_path, training, code, line
):
    codes, _ = ended(tmp_path, training=linear(training))
    assert line in (tmp_path / "errors_1").read_text().splitlines()
    assert codes[1] == code and codes[0] not in (0, 2)
