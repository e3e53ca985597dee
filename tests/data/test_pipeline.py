import json
import os
import signal

import jax
import numpy as np
import pytest

from xactor_jax.data.pipeline import Batches, LocalBatches
from xactor_jax.data.windows import Windows
from xactor_jax.errors import InputError
from xactor_jax.sharding import make_mesh

ONE_DEVICE = {"replica": 1, "fsdp": 1, "context": 1, "tensor": 1}


def load(window, rng):
    return {
        "clip": np.int32(window["clip"]),
        "start": np.int32(window["start"]),
        "draw": np.float32(rng.random()),
    }


def rows(batch):
    return list(
        zip(batch["clip"].tolist(), batch["start"].tolist(), batch["draw"].tolist(), strict=True)
    )


def shares(processes):
    """The iterators of all processes of one training over 21 windows."""
    source = Windows([12, 7, 28], window=4, stride=2)
    each = 8 // processes
    return [
        LocalBatches(
            source,
            load,
            batch_size=8,
            rows=range(process * each, (process + 1) * each),
            seed=5,
            threads=2,
        )
        for process in range(processes)
    ]


def global_batch(iterators):
    return [row for iterator in iterators for row in rows(next(iterator))]


def test_an_epoch_holds_every_window_once_and_the_next_one_is_another_order():
    source = Windows([12, 7, 28], window=4, stride=2)
    assert len(source) == 21
    [iterator] = shares(1)
    taken = [row for _ in range(21) for row in rows(next(iterator))]  # 8 epochs of 21
    epochs = [taken[i : i + 21] for i in range(0, 168, 21)]
    every = sorted((w["clip"], w["start"]) for w in map(source.__getitem__, range(21)))
    for epoch in epochs:
        assert sorted((clip, start) for clip, start, _ in epoch) == every
    orders = {tuple((clip, start) for clip, start, _ in epoch) for epoch in epochs}
    assert len(orders) == 8
    assert len({draw for _, _, draw in taken}) == 168


@pytest.mark.parametrize(("before", "after"), [(1, 1), (4, 2), (1, 4)])
def test_the_position_of_one_process_continues_any_number_of_them(before, after):
    first = shares(before)
    for _ in range(5):
        global_batch(first)
    positions = [iterator.position() for iterator in first]
    assert all(position == positions[0] for position in positions)
    position = json.loads(json.dumps(positions[-1]))
    expected = [global_batch(first) for _ in range(4)]

    second = shares(after)
    for iterator in second:
        iterator.seek(position)
    assert [global_batch(second) for _ in range(4)] == expected


def test_batches_lie_on_the_mesh_and_continue_from_a_position():
    mesh = make_mesh(ONE_DEVICE, jax.devices()[:1])

    def batches():
        return Batches(Windows([40], window=4), load, mesh, batch_size=8, seed=1)

    first = batches()
    next(first)
    position = first.position()
    expected = next(first)
    second = batches()
    second.seek(position)
    actual = next(second)
    assert isinstance(actual["clip"], jax.Array)
    assert actual["clip"].sharding.mesh == mesh
    assert rows(actual) == rows(expected)
    first.close()
    second.close()


def test_data_without_a_window_is_an_input_error():
    mesh = make_mesh(ONE_DEVICE, jax.devices()[:1])
    with pytest.raises(InputError, match="no training example"):
        Batches(Windows([3], window=4), load, mesh, batch_size=8, seed=1)


class Deadly:
    """A `load` whose process dies in example 20, `deaths` times in all, counted in a folder."""

    def __init__(self, folder, deaths):
        self.folder, self.deaths, self.home = folder, deaths, os.getpid()

    def __call__(self, index, rng):
        count = len(list(self.folder.iterdir()))
        if index == 20 and os.getpid() != self.home and count < self.deaths:
            (self.folder / str(count)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"clip": np.int32(index), "start": np.int32(0), "draw": np.float32(rng.random())}


def read_by_processes(load, workers):
    return LocalBatches(
        range(64), load, batch_size=8, rows=range(8), seed=2, threads=1, workers=workers
    )


def test_a_reading_process_that_dies_is_replaced_and_no_example_is_lost(tmp_path, caplog):
    here, there = (read_by_processes(Deadly(tmp_path, 1), workers) for workers in (0, 1))
    expected = [rows(next(here)) for _ in range(8)]
    actual = [rows(next(there)) for _ in range(8)]
    there.close()
    assert actual == expected
    assert len(list(tmp_path.iterdir())) == 1
    assert "a reading process died" in caplog.text


@pytest.mark.slow
def test_any_number_of_reading_processes_keeps_the_order(tmp_path):
    here, there = (read_by_processes(Deadly(tmp_path, 0), workers) for workers in (0, 3))
    assert [rows(next(there)) for _ in range(9)] == [rows(next(here)) for _ in range(9)]
    there.close()


@pytest.mark.slow
def test_reading_processes_that_keep_dying_stop_the_run(tmp_path):
    batches = read_by_processes(Deadly(tmp_path, 99), 1)
    with pytest.raises(InputError, match=r"die again and again .*exit code -9.*read_workers=1"):
        for _ in range(9):
            next(batches)
    batches.close()


def test_an_error_of_the_data_is_not_taken_for_a_death():
    def broken(index, rng):
        raise RuntimeError(f"example {index} is broken")

    with pytest.raises(RuntimeError, match=r"example \d+ is broken"):
        next(read_by_processes(broken, 0))
