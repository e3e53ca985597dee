"""Meshes, and which axis of which tensor lies where: the only file that names mesh axes.

Axes: `replica` repeats the model, `fsdp` splits parameters and batch, `context` splits time (frames
of video, chunks of motion), `tensor` splits heads and hidden features. All are Auto axes: networks
say at most `constrain(x, "batch")` and the compiler does the rest. One device is a 1x1x1x1 mesh.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from xactor_jax.errors import InputError
from xactor_jax.state import tensor_name

MESH_AXES = ("replica", "fsdp", "context", "tensor")

# What the axes of an activation are called in the networks, and where they may be split.
ACTIVATION_AXES: dict[str, tuple[str, ...]] = {
    "batch": ("replica", "fsdp"),
    "frames": ("context",),
    "rows": ("replica", "fsdp", "context"),  # of a batch with its frames, or with its pixels
    "heads": ("tensor",),
    "features": ("tensor",),
}

SpecFunction = Callable[[tuple[int, ...], Mesh], P]
Rule = tuple[str, SpecFunction]

# Below this a split costs more in messages than it saves in memory.
SMALLEST_SPLIT = 2**12
LARGEST_UNSPLIT_BYTES = 2**20


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices, from the size of each axis; one size may be -1, "the rest".

    Raises InputError when the sizes do not multiply to the number of devices, or these cannot be
    laid along axes of such sizes.
    """
    devices = jax.devices() if devices is None else devices
    shape = [int(sizes[axis]) for axis in MESH_AXES]
    wanted = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, shape, strict=True))
    if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
        raise InputError(f"config.mesh: sizes must be positive, one may be -1; got {wanted}")
    if -1 in shape:
        known = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = max(1, len(devices) // known)
    if math.prod(shape) != len(devices):
        raise InputError(
            f"config.mesh: {wanted} does not fill {len(devices)} devices; "
            "set one axis to -1 to take the rest"
        )
    placed = _placed(devices, shape, wanted)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _placed(devices: Sequence[jax.Device], shape: Sequence[int], wanted: str) -> np.ndarray:
    """The devices in the shape of the mesh: neighbours along its later axes are near each other.

    A side of a slice may be shared by several axes: one that needs no sharing is preferred.
    """
    slices = len({getattr(device, "slice_index", None) for device in devices})
    between = _between_slices(shape, slices, wanted) if slices > 1 else [1] * len(shape)
    inside = [size // count for size, count in zip(shape, between, strict=True)]
    try:
        if slices == 1:
            return mesh_utils.create_device_mesh(inside, devices, allow_split_physical_axes=True)
        return mesh_utils.create_hybrid_device_mesh(
            inside, between, devices, allow_split_physical_axes=True
        )
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
        # JAX 0.10 loses factors of sizes such as 10, and fails in several ways.
        raise InputError(
            f"config.mesh: {wanted} cannot be laid on {_sides(devices)}; make sizes products of "
            "its sides, or set fsdp=-1 and the others to 1"
        ) from error


def _sides(devices: Sequence[jax.Device]) -> str:
    """Devices and where they lie, such as "320 x TPU v5 in slices of 4x4x20"."""
    kind = f"{len(devices)} x {devices[0].device_kind}"
    places = [device.coords for device in devices if hasattr(device, "coords")]
    if not places:
        return kind
    sides = np.ptp(places, axis=0) + 1
    return f"{kind} in slices of {'x'.join(map(str, sides))}"


def _between_slices(shape: Sequence[int], slices: int, wanted: str) -> list[int]:
    """How many slices lie along each axis of the mesh: whole slices repeat the model if they can.

    The network between slices is slow. Along `replica` only gradients cross it, along `fsdp`
    parameters do too, along the other axes activations would.
    """
    for axis in ("replica", "fsdp"):
        if shape[MESH_AXES.index(axis)] % slices == 0:
            return [slices if name == axis else 1 for name in MESH_AXES]
    raise InputError(
        f"config.mesh: {wanted} on {slices} slices; make replica (or fsdp) a multiple of {slices}"
    )


def largest_dimension(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Split the largest dimension that `fsdp` divides; none when the tensor is small.

    Source: google-research/big_vision `big_vision/sharding.py`.
    """
    size = mesh.shape["fsdp"]
    if size == 1 or math.prod(shape) < SMALLEST_SPLIT:
        return P()
    for axis in sorted(range(len(shape)), key=lambda axis: (-shape[axis], axis)):
        if shape[axis] % size == 0:
            return P(*[None] * axis, "fsdp")
    return P()


def split_by_tensor(axis: int) -> SpecFunction:
    """A rule for matrices: one axis over `tensor`, and the largest other that divides over `fsdp`.

    Projections to heads or hidden features split what they make, those back split what they take,
    so that a pair of them exchanges nothing in between (Megatron-LM, arXiv 1909.08053).
    """

    def spec(shape: tuple[int, ...], mesh: Mesh) -> P:
        tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
        if tensor == 1 or math.prod(shape) < SMALLEST_SPLIT or shape[axis] % tensor:
            return largest_dimension(shape, mesh)
        axes: list[str | None] = [None] * len(shape)
        axes[axis] = "tensor"
        others = [n for n, name in enumerate(axes) if name is None and shape[n] % fsdp == 0]
        if others and fsdp > 1:
            axes[max(others, key=lambda n: shape[n])] = "fsdp"
        while axes[-1] is None:
            axes.pop()
        return P(*axes)

    return spec


# Attention's fused projection to queries, keys and values stays whole: thirds are not heads.
RULES: tuple[Rule, ...] = (
    (r"(^|/)(to_q|to_k|to_v|hidden|ff/proj)/kernel$", split_by_tensor(-1)),
    (r"(^|/)(to_out|self_attention/out|ff/out|blocks/\d+/out)/kernel$", split_by_tensor(-2)),
    (r"", largest_dimension),
)


def tensor_shardings(tree: Any, mesh: Mesh, rules: Sequence[Rule] = RULES) -> Any:
    """The sharding of every tensor of a tree of arrays or shapes; the first rule that matches wins.

    A rule is (regular expression searched in the tensor's name, function (shape, mesh) -> spec).
    Raises InputError for a tensor above 1 MB that the rules leave whole although fsdp > 1.
    """

    def sharding(path: tuple, leaf: Any) -> NamedSharding:
        name, shape = tensor_name(path), tuple(leaf.shape)
        function = next((function for pattern, function in rules if re.search(pattern, name)), None)
        spec = P() if function is None else function(shape, mesh)
        nbytes = leaf.size * leaf.dtype.itemsize
        whole = not any(axis is not None for axis in spec)
        if whole and mesh.shape["fsdp"] > 1 and nbytes > LARGEST_UNSPLIT_BYTES:
            raise InputError(
                f"no axis of {name} {shape} divides by config.mesh.fsdp={mesh.shape['fsdp']}; "
                "choose another mesh or give the tensor a rule in xactor_jax/sharding.py"
            )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def check_batch(batch_size: int, mesh: Mesh, slices: int = 1) -> None:
    """Raise InputError for a batch that the mesh does not divide, or not in so many slices."""
    ways = mesh.shape["replica"] * mesh.shape["fsdp"]
    if batch_size < 1 or batch_size % (ways * slices):
        also = " x optimizer.accumulate" if slices > 1 else ""
        raise InputError(
            f"config.batch_size={batch_size} must be a multiple of replica x fsdp{also} = "
            f"{ways * slices}"
        )


def share_evenly(rows: int) -> bool:
    """Whether the devices of the mesh that is traced for can each have as many of these rows."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or rows % (mesh.shape["replica"] * mesh.shape["fsdp"]) == 0


def check_context(parts: int, name: str) -> None:
    """Raise InputError where the mesh's context axis does not divide a window's `parts`.

    Its devices would then all do the same work.
    """
    mesh = jax.sharding.get_abstract_mesh()
    context = 1 if mesh.empty else mesh.shape["context"]
    if parts % context:
        raise InputError(f"config.mesh.context={context} does not divide the {parts} {name}")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over `replica` and `fsdp`; every other axis whole."""
    return NamedSharding(mesh, P(ACTIVATION_AXES["batch"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, P())


def place(tree: Any, mesh: Mesh) -> Any:
    """Lay a tree of arrays, the same on every process, on the mesh by `RULES`."""
    return jax.device_put(to_host(tree), tensor_shardings(tree, mesh))


def mesh_size() -> int:
    """How many devices share the work that is being traced: those of the mesh, or one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def platform() -> str:
    """What the work that is being traced will run on, "cpu", "tpu" or "gpu": the mesh's devices."""
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform


def on_each_device(function: Callable[..., jax.Array], *, heads: int) -> Callable[..., jax.Array]:
    """A function of batches, such as a kernel, called by every device with its own rows and heads.

    Args:
      function: of arrays whose leading axis are rows; all but the last of them have heads.
      heads: their axis.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function

    def call(*arrays: jax.Array) -> jax.Array:
        rows = _axes_that_divide("rows", arrays[0].shape[0])
        split = _axes_that_divide("heads", arrays[0].shape[heads])
        with_heads = P(rows, *[None] * (heads - 1), split)
        specs = (*[with_heads] * (len(arrays) - 1), P(rows))
        over = jax.shard_map(function, in_specs=specs, out_specs=with_heads, check_vma=False)
        return over(*arrays)

    return call


def _axes_that_divide(name: str | None, size: int) -> tuple[str, ...] | None:
    """The first so many mesh axes of an activation's axis that divide it; None: it stays whole."""
    mesh = jax.sharding.get_abstract_mesh()
    names = ACTIVATION_AXES[name] if name else ()
    while names:
        split = math.prod(mesh.shape[axis] for axis in names)
        if split > 1 and size % split == 0:
            return names
        names = names[:-1]
    return None


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Say where an activation lies: one name of `ACTIVATION_AXES` or None for each leading axis.

    Axes are split over the first so many of their mesh axes that divide them, or stay whole;
    without a mesh this returns `x`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x

    spec = P(*[_axes_that_divide(name, size) for name, size in zip(axes, x.shape, strict=False)])
    return jax.lax.with_sharding_constraint(x, spec)


def to_host(tree: Any) -> Any:
    """Whole numpy copies of a tree of arrays; with several processes, all must call it together."""

    def gather(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(jax.device_get(leaf))

    return jax.tree.map(gather, tree)
