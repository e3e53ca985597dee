import json

import jax
import numpy as np
import pytest

from xactor_jax.data.pipeline import Batches, local_batches
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
    return [
        local_batches(source, load, batch_size=8, seed=5, process=i, processes=processes, threads=2)
        for i in range(processes)
    ]


def global_batch(iterators):
    return sorted(row for iterator in iterators for row in rows(next(iterator)))


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
    positions = [iterator.get_state() for iterator in first]
    assert all(position == positions[0] for position in positions)
    position = json.loads(json.dumps(positions[-1]))
    expected = [global_batch(first) for _ in range(4)]

    second = shares(after)
    for iterator in second:
        iterator.set_state(position)
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
