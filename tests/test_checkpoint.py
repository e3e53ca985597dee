import contextlib
import errno
import resource
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from xactor_jax.checkpoint import Checkpoints, load_weights, save_weights
from xactor_jax.errors import InputError

PARAMS = {
    "blocks": {
        0: {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7},
        10: {"kernel": np.full((2, 3), -1e-3, np.float32)},
    },
    "count": np.int32(5),
}


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def placed(state):
    """The shapes of a state, to lie where it lies."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def test_weights_come_back_as_they_were(tmp_path):
    metadata = {"config": {"width": 64}, "licence": "CC BY 4.0", "naïve": [1.5, None]}
    path = tmp_path / "new" / "model.safetensors"
    save_weights(path, jax.tree.map(jnp.asarray, PARAMS), metadata)
    params, found = load_weights(path)
    assert_same(params, PARAMS)
    assert params["count"].shape == ()
    assert found == metadata
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_half_precision_weights_take_half_the_room_and_load_as_float32(tmp_path):
    wide = {"kernel": np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)}
    save_weights(tmp_path / "full", wide, {})
    save_weights(tmp_path / "half", wide, {}, dtype="float16")
    assert (tmp_path / "half").stat().st_size < 0.52 * (tmp_path / "full").stat().st_size
    kernel = load_weights(tmp_path / "half")[0]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, wide["kernel"].astype(np.float16).astype(np.float32))


def test_a_failed_write_keeps_the_file_before(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, PARAMS, {"version": 1})
    with pytest.raises(ValueError, match="kernel"):
        save_weights(path, {"kernel": np.float32([1e6])}, {"version": 2}, dtype="float16")
    with pytest.raises(TypeError):
        save_weights(path, PARAMS, {"version": object()})
    assert load_weights(path)[1] == {"version": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_files_that_are_not_weights_are_input_errors(tmp_path):
    with pytest.raises(InputError, match=r"absent\.safetensors: no such"):
        load_weights(tmp_path / "absent.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": np.ones(2, np.float32)}, foreign)
    with pytest.raises(InputError, match=r"foreign\.safetensors: .*not weights of xactor_jax"):
        load_weights(foreign)
    text = tmp_path / "text.safetensors"
    text.write_text("hello, I am not a tensor file at all")
    with pytest.raises(InputError, match=r"text\.safetensors: not a whole safetensors file"):
        load_weights(text)
    whole = tmp_path / "whole.safetensors"
    save_weights(whole, PARAMS, {})
    whole.write_bytes(whole.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"whole\.safetensors: not a whole"):
        load_weights(whole)


def test_the_newest_two_checkpoints_are_kept_and_the_newest_restored(tmp_path):
    def state(step):
        return {"blocks": {0: {"kernel": jnp.full((4, 2), step)}}, "none": {}}

    meta = {"batches": {"global_next_index": 24}, "config": {"schedule": "cosine", "range": [1, 2]}}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        for step in (3, 6, 9):
            checkpoints.save(step, state(step), {**meta, "step": step})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 9
        restored, found = checkpoints.restore(placed(state(0)))
    assert_same(restored, state(9))
    assert found == {**meta, "step": 9}
    assert {path.name for path in tmp_path.iterdir()} == {"6", "9"}


def test_every_nth_checkpoint_is_kept_beside_the_newest(tmp_path):
    with Checkpoints(tmp_path, keep_last=1, keep_every=4) as checkpoints:
        for step in range(2, 12, 2):
            checkpoints.save(step, {"x": jnp.ones(2)}, {})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [4, 8, 10]


def large_state(seed=0):
    """Four megabytes that cannot be compressed."""
    return {"kernel": jax.random.bits(jax.random.key(seed), (1024, 1024)).view(jnp.float32)}


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def cut(folder):
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(folder):
    path = largest_file(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip_a_bit,
        lambda folder: shutil.rmtree(folder / "meta"),
        lambda folder: (folder / "state" / "_METADATA").unlink(),
    ],
    ids=["cut", "flipped", "no meta", "no description"],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog, damage):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, large_state(1), {"position": 1})
        checkpoints.save(2, large_state(2), {"position": 2})
    damage(folder / "2")
    with Checkpoints(folder) as checkpoints:
        state, meta = checkpoints.restore(placed(large_state()))
        assert_same(state, large_state(1))
        assert meta == {"position": 1}
        assert f"checkpoint {folder / '2'} is damaged" in caplog.text
        # Its place is free again, and nothing was thrown away.
        checkpoints.save(2, large_state(3), {"position": 3})
    assert (tmp_path / "checkpoints_damaged" / "2").is_dir()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(placed(large_state()))[1] == {"position": 3}


def test_without_a_whole_checkpoint_nothing_is_begun_anew(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.restore(placed(large_state())) is None
        checkpoints.save(1, large_state(), {})
    cut(tmp_path / "checkpoints" / "1")
    message = r"no checkpoint is whole \(damaged: \[1\]\): \w+: .+; start again"
    for _ in range(2):
        with (
            Checkpoints(tmp_path / "checkpoints") as checkpoints,
            pytest.raises(InputError, match=message),
        ):
            checkpoints.restore(placed(large_state()))


@pytest.mark.parametrize(
    "hindrance",
    [
        MemoryError("no more"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.ESTALE, "Stale file handle"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
        ValueError("PERMISSION_DENIED: Error reading local file"),
    ],
    ids=repr,
)
def test_what_hinders_reading_is_said_and_moves_no_checkpoint(tmp_path, monkeypatch, hindrance):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, large_state(1), {})
        checkpoints.save(2, large_state(2), {})

    def hindered(*_):
        raise RuntimeError("cannot load") from hindrance

    with Checkpoints(folder) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr("xactor_jax.checkpoint.ocp.load_checkpointables", hindered)
            with pytest.raises(InputError, match=f"2 cannot be read .{type(hindrance).__name__}: "):
                checkpoints.restore(placed(large_state()))
        assert checkpoints.steps() == [1, 2]
        assert_same(checkpoints.restore(placed(large_state()))[0], large_state(2))


def test_a_disk_without_room_stops_before_anything_is_written(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, large_state(), {})
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**22 - 1))
        with pytest.raises(InputError, match=r"needs 0.00 GB .*the last checkpoint is .*1; make"):
            checkpoints.save(2, large_state(), {})
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**22))
        with pytest.raises(InputError, match=r"needs 0.01 GB "):
            checkpoints.save(2, large_state(), {}, exported=large_state())
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond a megabyte: what a full disk does, in the middle of a write."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def test_a_write_that_fails_half_way_leaves_the_checkpoint_before(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, large_state(1), {})
        checkpoints.wait()
        with full_disk():
            checkpoints.save(2, large_state(2), {})
            with pytest.raises(InputError, match=r"2 could not be written .*the last .*1; mend"):
                checkpoints.wait()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
        assert_same(checkpoints.restore(placed(large_state()))[0], large_state(1))


def test_weights_that_cannot_be_written_leave_the_file_before(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, PARAMS, {"version": 1})
    with full_disk(), pytest.raises(InputError, match=r"model\.safetensors: cannot be written"):
        save_weights(path, large_state(), {"version": 2})
    assert load_weights(path)[1] == {"version": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_the_state_may_be_given_away_while_it_is_written(tmp_path):
    change = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    state = jnp.arange(2.0**20)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": state}, {})
        state = change(state)
        state.block_until_ready()
    with Checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore({"x": placed(state)})
    np.testing.assert_array_equal(restored["x"], np.arange(2.0**20, dtype=np.float32))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"kernel": jnp.ones((2, 2))}, r"has kernel as \[4, 2\], this config as \[2, 2\]"),
        ({"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}, "lacks bias"),
        ({}, "has kernel, which this config lacks"),
    ],
)
def test_a_checkpoint_of_another_network_is_named(tmp_path, other, message):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"kernel": jnp.ones((4, 2))}, {})
        checkpoints.wait()
        with pytest.raises(InputError, match=message):
            checkpoints.restore(placed(other))
