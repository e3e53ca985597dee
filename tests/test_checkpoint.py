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
