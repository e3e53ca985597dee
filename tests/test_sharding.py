import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from xactor_jax.errors import InputError
from xactor_jax.planning.chips import topology
from xactor_jax.planning.estimate import mesh_shapes
from xactor_jax.sharding import (
    MESH_AXES,
    check_batch,
    check_context,
    constrain,
    make_mesh,
    tensor_shardings,
    to_host,
)


def abstract_mesh(*sizes):
    return AbstractMesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 4)


def shapes(**tensors):
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in tensors.items()}


def specs(tree, mesh, **options):
    return jax.tree.map(lambda s: s.spec, tensor_shardings(tree, mesh, **options))


def test_the_largest_dimension_that_divides_is_split():
    tree = shapes(kernel=(64, 512), odd=(1023, 64), small=(8, 8), bias=(512,), conv=(3, 3, 64, 128))
    assert specs(tree, abstract_mesh(1, 8, 1, 1)) == {
        "kernel": P(None, "fsdp"),
        "odd": P(None, "fsdp"),
        "small": P(),
        "bias": P(),
        "conv": P(None, None, None, "fsdp"),
    }


def test_a_batch_must_divide_into_slices_of_which_every_device_has_rows():
    mesh = abstract_mesh(2, 4, 1, 1)
    check_batch(16, mesh, slices=2)
    for size, slices, divisor in ((12, 1, "replica x fsdp = 8"), (24, 2, "accumulate = 16")):
        with pytest.raises(InputError, match=f"batch_size={size} must be a multiple .*{divisor}"):
            check_batch(size, mesh, slices)


def test_one_device_splits_nothing():
    tree = shapes(kernel=(1024, 1024), odd=(1001, 1001))
    assert specs(tree, abstract_mesh(1, 1, 1, 1)) == {"kernel": P(), "odd": P()}


def test_the_first_rule_that_matches_wins():
    rules = ((r"query/", lambda shape, mesh: P("tensor")), (r"", lambda shape, mesh: P("fsdp")))
    tree = {"query": shapes(kernel=(64, 64)), "out": shapes(kernel=(64, 64))}
    assert specs(tree, abstract_mesh(1, 2, 1, 2), rules=rules) == {
        "query": {"kernel": P("tensor")},
        "out": {"kernel": P("fsdp")},
    }


def test_heads_and_hidden_features_are_split_over_tensor():
    tree = {
        "attention": {name: shapes(kernel=(128, 64)) for name in ("to_q", "to_out")},
        "ff": {"proj": shapes(kernel=(64, 512), bias=(512,)), "out": shapes(kernel=(256, 64))},
        "self_attention": {"qkv": shapes(kernel=(64, 192))},
    }
    assert specs(tree, abstract_mesh(1, 2, 1, 2)) == {
        "attention": {
            "to_q": {"kernel": P("fsdp", "tensor")},
            "to_out": {"kernel": P("tensor", "fsdp")},
        },
        "ff": {
            "proj": {"kernel": P("fsdp", "tensor"), "bias": P()},
            "out": {"kernel": P("tensor", "fsdp")},
        },
        "self_attention": {"qkv": {"kernel": P(None, "fsdp")}},
    }


def test_heads_that_tensor_does_not_divide_stay_whole():
    tree = {"to_q": shapes(kernel=(128, 63))}
    assert specs(tree, abstract_mesh(1, 2, 1, 2)) == {"to_q": {"kernel": P("fsdp")}}


@pytest.mark.libtpu
def test_slices_repeat_the_model_or_share_it():
    devices, _ = topology("v5e:2x2", slices=2)

    def of_slice(*sizes):
        mesh = make_mesh(dict(zip(MESH_AXES, sizes, strict=True)), devices)
        return np.vectorize(lambda device: device.slice_index)(mesh.devices)

    repeats = of_slice(2, 4, 1, 1)
    assert (repeats[0] == repeats[0].flat[0]).all() and (repeats[1] != repeats[0]).all()
    shares = of_slice(1, 8, 1, 1)
    # Neighbours along fsdp lie in one slice but for one step from slice to slice.
    assert np.abs(np.diff(shares.ravel())).sum() == 1
    with pytest.raises(InputError, match=r"on 2 slices; make replica"):
        of_slice(1, 1, 8, 1)


@pytest.mark.libtpu
@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize(
    "name",
    [
        *("v4:2x2x4", "v4:4x4x4", "v5e:2x4", "v5e:4x4", "v5e:8x8", "v5p:2x2x2", "v5p:4x4x4"),
        *("v6e:2x4", "v6e:4x4", "v6e:4x8", "tpu7x:2x2x2", "tpu7x:2x4x4", "tpu7x:4x4x4"),
    ],
)
def test_every_mesh_that_a_sweep_offers_can_be_made_of_its_slices(name, slices):
    devices, _ = topology(name, slices)
    count = len(devices)
    for sizes in mesh_shapes(count, slices, rows=count, parts=count):
        mesh = make_mesh(sizes, devices)
        assert dict(mesh.shape) == sizes
        assert {device.id for device in mesh.devices.flat} == {device.id for device in devices}
        for group in mesh.devices.reshape(-1, sizes["tensor"]):
            # Those that share heads fill a box of one slice: nothing lies between them.
            places = np.array([place_of(device) for device in group])
            assert np.prod(np.ptp(places, axis=0) + 1) == len(group)
        for number, repeat in enumerate(mesh.devices):
            assert slices == 1 or {device.slice_index for device in repeat.flat} == {number}


def place_of(device):
    return (*device.coords, device.core_on_chip, getattr(device, "slice_index", 0))


@pytest.mark.libtpu
def test_a_mesh_that_cannot_be_laid_on_a_slice_is_named_with_it():
    devices, _ = topology("v5p:4x4x20")
    sizes = dict(zip(MESH_AXES, (1, 10, 8, 4), strict=True))
    try:
        assert dict(make_mesh(sizes, devices).shape) == sizes  # as newer JAX does
    except InputError as error:
        wanted = "config.mesh: replica=1, fsdp=10, context=8, tensor=4 cannot be laid on"
        assert str(error).startswith(f"{wanted} 320 x TPU v5 in slices of 4x4x20; make sizes")
    whole = dict(zip(MESH_AXES, (1, -1, 1, 1), strict=True))
    assert make_mesh(whole, devices).shape["fsdp"] == len(devices)


def test_a_window_that_context_does_not_divide_is_an_error():
    with jax.sharding.use_abstract_mesh(abstract_mesh(1, 2, 4, 1)):
        check_context(8, "frames of a window")
        with pytest.raises(InputError, match=r"context=4 does not divide the 6 frames"):
            check_context(6, "frames of a window")
    check_context(6, "frames of a window")


def test_a_large_tensor_that_nothing_divides_is_named():
    tree = {"block": shapes(kernel=(1001, 1001))}
    with pytest.raises(InputError, match=r"block/kernel \(1001, 1001\).*fsdp=8"):
        tensor_shardings(tree, abstract_mesh(1, 8, 1, 1))


def test_mesh_sizes_must_fill_the_devices():
    [device] = jax.devices()[:1]
    mesh = make_mesh({"replica": 1, "fsdp": -1, "context": 1, "tensor": 1}, [device])
    assert dict(mesh.shape) == {"replica": 1, "fsdp": 1, "context": 1, "tensor": 1}
    for sizes in ((1, 2, 1, 1), (-1, -1, 1, 1), (0, 1, 1, 1), (-1, 2, 1, 1)):
        with pytest.raises(InputError, match=r"config\.mesh"):
            make_mesh(dict(zip(MESH_AXES, sizes, strict=True)), [device])


def test_constrain_leaves_values_alone_without_a_mesh():
    x = jnp.arange(6.0).reshape(2, 3)
    assert constrain(x, "batch", None) is x


def test_constrain_splits_only_what_the_mesh_divides():
    def spec(*shape):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        with jax.sharding.use_abstract_mesh(abstract_mesh(2, 4, 2, 1)):
            traced = jax.make_jaxpr(lambda x: constrain(x, "batch", "frames", "heads"))(x)
        return traced.eqns[0].params["sharding"].spec

    assert spec(8, 6, 4) == P(("replica", "fsdp"), "context", None)
    assert spec(3, 6, 4) == P(None, "context", None)
    assert spec(16, 5, 4) == P(("replica", "fsdp"), None, None)


def test_rows_that_context_does_not_divide_are_split_by_the_batch():
    def spec(rows):
        x = jax.ShapeDtypeStruct((rows, 3), jnp.float32)
        with jax.sharding.use_abstract_mesh(abstract_mesh(2, 4, 2, 1)):
            traced = jax.make_jaxpr(lambda x: constrain(x, "rows"))(x)
        return traced.eqns[0].params["sharding"].spec

    assert spec(16) == P(("replica", "fsdp", "context"))
    assert spec(8) == P(("replica", "fsdp"))
    assert spec(7) == P(None)


def test_to_host_gives_numpy():
    tree = to_host({"a": jnp.ones(3), "b": np.zeros(2)})
    assert all(type(leaf) is np.ndarray for leaf in tree.values())
