"""What survives a training: resumable checkpoints (Orbax) and weight files (safetensors).

Everything that Orbax v1 is asked for lies here, since its names still move.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from orbax.checkpoint import v1 as ocp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from xactor_jax.config import build
from xactor_jax.errors import InputError
from xactor_jax.nn.layers import abstract
from xactor_jax.processes import together, true_everywhere
from xactor_jax.sharding import to_host
from xactor_jax.state import named_tensors

T = TypeVar("T")
M = TypeVar("M", bound=nnx.Module)
METADATA_KEY = "xactor_jax"
# What XLA and TensorStore say, in errors of no type of their own.
_HINDRANCE = re.compile(
    "RESOURCE_EXHAUSTED|PERMISSION_DENIED|Permission denied|Cannot allocate memory|"
    "Stale file handle|Too many open files|Input/output error"
)


class Checkpoints:
    """The checkpoints of one training, in one folder; use it as a context manager.

    A checkpoint appears under its final name only when it is whole, so a kill at any moment leaves
    the one before. Saving copies the state to the host and writes it in the background. Kept are
    the newest `keep_last`, and every one whose step is a multiple of `keep_every`, when not 0.
    With several processes all must call every method together.
    """

    def __init__(self, folder: Path, keep_last: int = 2, keep_every: int = 0):
        policies = ocp.training.preservation_policies
        kept: list[Any] = [policies.LatestN(keep_last)]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        self._folder = folder
        self._saving: tuple[int, Any] | None = None
        self._unwritten: set[int] = set()
        self._checkpointer = ocp.training.Checkpointer(
            str(folder.absolute()),
            preservation_policy=policies.AnyPreservationPolicy(kept),  # pyrefly: ignore[bad-argument-type]
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            # A write that failed has been reported, and Orbax would report it once more.
            failed = kind is not None or self._unwritten
            with contextlib.suppress(Exception) if failed else contextlib.nullcontext():
                self._checkpointer.close()

    def steps(self) -> list[int]:
        """The steps of all whole checkpoints, ascending."""
        unfinished = self._unwritten | ({self._saving[0]} if self._saving else set())
        return [one.step for one in self._checkpointer.checkpoints if one.step not in unfinished]

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        return max(self.steps(), default=None)

    def describe_latest(self) -> str:
        """The newest whole checkpoint, as a part of a message."""
        step = self.latest()
        where = self._folder / str(step)
        return "there is no checkpoint yet" if step is None else f"the last checkpoint is {where}"

    def save(self, step: int, state: Any, meta: dict[str, Any], exported: Any = None) -> None:
        """Start to write `state` (a tree of arrays) and `meta` (JSON values) as one checkpoint,
        once the one before is written.

        exported: arrays that will be written beside it, for which there must be room too.
        Raises InputError for a disk without room, and when the one before could not be written.
        """
        self.wait()
        self._check_room((state, exported))
        meta = {**meta, "shapes": _shapes(state), "bit_sums": bit_sums(state)}
        saving = self._checkpointer.save_checkpointables_async(
            step, {"state": state, "meta": meta}, force=True
        )
        self._saving = (step, saving)

    def _check_room(self, arrays: Any) -> None:
        """Raise InputError on all processes when the disk of process 0 cannot hold `arrays`."""
        needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
        free = shutil.disk_usage(self._folder).free
        if not true_everywhere(free >= needed or jax.process_index() != 0):
            raise InputError(
                f"{self._folder}: a save needs {needed / 1e9:.2f} GB and the disk has "
                f"{free / 1e9:.2f}; {self.describe_latest()}; make room and run again"
            )

    def wait(self) -> None:
        """Return when everything saved is on disk. Raises InputError when it cannot be written."""
        if self._saving is None:
            return
        step, saving = self._saving
        failure = f"checkpoint {self._folder / str(step)} could not be written"
        with together(failure):
            try:
                saving.result()
            except Exception as error:
                self._unwritten.add(step)
                raise InputError(
                    f"{failure} ({innermost_reason(error)}); {self.describe_latest()}; "
                    "mend this and run again"
                ) from error
            finally:
                self._saving = None

    def restore(self, state: Any) -> tuple[Any, dict[str, Any]] | None:
        """The tree and meta of the newest checkpoint, or None when there is none yet.

        state: tree of `jax.ShapeDtypeStruct` with shardings, of any mesh; the tree is laid out so.
        A checkpoint that cannot be read, or whose bits are not those that were saved, is reported,
        and the one before it is taken; damaged ones are then moved to a folder of their own.
        Raises InputError naming the first tensor that the checkpoint has in another shape or lacks,
        when no checkpoint is whole, and for what keeps a checkpoint from being read that may be
        whole, such as a lack of memory; none is then moved.
        """
        damaged, reason = [], ""
        for step in reversed(self.steps()):
            try:
                found = self._read(step, state)
            except Damaged as error:
                damaged.append(step)
                reason = str(error)
                logging.error("checkpoint %s is damaged: %s", self._folder / str(step), reason)
                continue
            self._set_aside(damaged)
            return found
        if damaged:
            raise InputError(
                f"{self._folder}: no checkpoint is whole (damaged: {damaged}): {reason}; "
                "start again with another --workdir"
            )
        return None

    def _read(self, step: int, state: Any) -> tuple[Any, dict[str, Any]]:
        path = str(self._folder.absolute() / str(step))
        where = f"checkpoint {self._folder / str(step)}"

        def read(name: str, layout: Any) -> Any:
            return read_everywhere(
                lambda: ocp.load_checkpointables(path, {name: layout})[name], where
            )

        meta = read("meta", None)
        compare_shapes(_shapes(state), meta.pop("shapes"), where, "--workdir")
        found = read("state", state)
        sums = bit_sums(found)
        if wrong := [name for name, sum in meta.pop("bit_sums", sums).items() if sum != sums[name]]:
            raise Damaged(f"{wrong[0]} is not what was saved")
        return found, meta

    def _set_aside(self, damaged: list[int]) -> None:
        """Move checkpoints to where they do not take the place of new ones."""
        if not damaged:
            return
        folder = self._folder.with_name(self._folder.name + "_damaged")
        with together(f"{folder}: checkpoints {damaged} could not be moved there"):
            if jax.process_index() == 0:
                folder.mkdir(exist_ok=True)
                for step in damaged:
                    count = sum(path.name.split(".")[0] == str(step) for path in folder.iterdir())
                    name = f"{step}.{count}" if count else str(step)
                    os.replace(self._folder / str(step), folder / name)
        self._checkpointer.reload()
        logging.error("moved to %s: %s; going on from the one before", folder, damaged)


class Damaged(Exception):
    """A checkpoint that cannot be trusted, and why."""


def read_everywhere(read: Callable[[], T], where: str) -> T:
    """What `read` returns on each process.

    Raises Damaged on all of them when what is read is to blame on any, and InputError, which says
    `where`, when a process or the machine is.
    """
    # Orbax would otherwise let the others wait for the one that failed.
    alone = ocp.Context()
    alone.multiprocessing.active_processes = {jax.process_index()}
    alone.multiprocessing.primary_host = jax.process_index()
    result: Any = None
    reason, hindered = "", False
    try:
        with alone:
            result = read()
    except Exception as error:  # A damaged file can make anything fail.
        reason, hindered = innermost_reason(error), any(map(is_hindrance, chain_of(error)))
    whole, possible = true_everywhere(not reason), true_everywhere(not hindered)
    if not possible:
        reason = reason if hindered else "another process cannot read it"
        raise InputError(f"{where} cannot be read ({reason}); mend this and run again")
    if not whole:
        raise Damaged(reason or "another process cannot read it")
    return result


def is_hindrance(error: BaseException) -> bool:
    """Whether an error says that a file could not be read now, which tells nothing of the file."""
    if isinstance(error, OSError):
        return not isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    return isinstance(error, MemoryError) or bool(_HINDRANCE.search(str(error)))


def chain_of(error: BaseException) -> list[BaseException]:
    """An error and those that led to it, the first of them last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def innermost_reason(error: BaseException) -> str:
    """The first line of the error that began a chain of them."""
    error = chain_of(error)[-1]
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[
        :300
    ]


def bit_sums(tree: Any) -> dict[str, int]:
    """Of every tensor the sum of its bits as integers, modulo 2^32; the same on every mesh."""
    names = named_tensors(tree)
    sums = to_host(_bit_sums(list(names.values())))
    return {name: int(sum) for name, sum in zip(names, sums, strict=True)}


@jax.jit
def _bit_sums(arrays: list[jax.Array]) -> jax.Array:
    def one(x: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")
        return jnp.sum(bits, dtype=jnp.uint32)

    return jnp.stack([one(x) for x in arrays])


def _shapes(tree: Any) -> dict[str, list[int]]:
    return {name: list(leaf.shape) for name, leaf in named_tensors(tree).items()}


def compare_shapes(
    wanted: dict[str, list[int]], found: dict[str, list[int]], where: str, cure: str
) -> None:
    """Raise InputError naming the first tensor that is missing, unknown or of another shape."""
    for name, shape in wanted.items():
        if name not in found:
            raise InputError(f"{where} lacks {name}, which this config has; use another {cure}")
        if found[name] != shape:
            raise InputError(
                f"{where} has {name} as {found[name]}, this config as {shape}; use another {cure}"
            )
    unknown = next((name for name in found if name not in wanted), None)
    if unknown is not None:
        raise InputError(f"{where} has {unknown}, which this config lacks; use another {cure}")


def save_weights(path: Path, params: Any, metadata: dict[str, Any], dtype: str = "float32") -> None:
    """Write a nested dict of arrays and JSON metadata as one safetensors file, whole or not at all.

    Floating arrays are stored as `dtype`, "float32" or "float16"; others as they are.
    With several processes all must call it; process 0 writes.
    Raises ValueError for a value that float16 cannot hold, and InputError for a file that cannot be
    written, as on a full disk.
    """
    tensors = named_tensors(to_host(params))
    arrays = {name: _stored(name, array, dtype) for name, array in tensors.items()}
    with together(f"{path}: cannot be written"):
        if jax.process_index() == 0:
            _write_weights(path, arrays, metadata)


def _write_weights(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        save_file(arrays, unfinished, {METADATA_KEY: json.dumps(metadata)})
        os.replace(unfinished, path)
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _stored(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    if not jax.numpy.issubdtype(array.dtype, np.floating):
        return np.asarray(array, order="C")
    if dtype == "float16" and array.size and np.abs(array.astype(np.float32)).max() > 65504:
        raise ValueError(f"{name} has values that float16 cannot hold")
    return np.asarray(array, dtype, order="C")


def load_weights(path: Path) -> tuple[dict, dict[str, Any]]:
    """Read a file of `save_weights`: (nested dict of numpy arrays, metadata).

    Floating arrays come back as float32. A key that is a number is a position in a list and comes
    back as an int, as in `nnx.to_pure_dict`.
    Raises InputError for a missing file or one that `save_weights` did not write.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get(METADATA_KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()} if metadata else {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from error
    except OSError:  # by safetensors, "no such file", also where it is there
        raise InputError(f"{path}: may not be read; change its permissions") from None
    if metadata is None:
        raise InputError(f"{path}: safetensors, but not weights of xactor_jax")
    params: dict = {}
    for name, array in arrays.items():
        *parents, leaf = [int(key) if key.isdecimal() else key for key in name.split("/")]
        group = params
        for key in parents:
            group = group.setdefault(key, {})
        group[leaf] = array.astype(np.float32) if array.dtype == np.float16 else array
    return params, json.loads(metadata)


def load_kind(path: Path, kind: str) -> tuple[dict, dict[str, Any]]:
    """Arrays and metadata of a weights file of one kind.

    Raises InputError for a missing or foreign file, or one of another kind.
    """
    arrays, metadata = load_weights(path)
    if metadata.get("kind") != kind:
        raise InputError(f"{path}: weights of a {metadata.get('kind')}, not of a {kind}")
    return arrays, metadata


def config_of(path: Path, metadata: dict[str, Any], name: str, kind: type[T]) -> T:
    """One of the configs in a weights file. Raises InputError where it is not as `kind` is now."""
    try:
        return build(kind, metadata[name])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: its config {name!r} is of another version ({error}); export the weights again"
        ) from None


def fitting_graph(path: Path, make: Callable[[nnx.Rngs], M], params: Any) -> nnx.GraphDef[M]:
    """The definition of the module that `make` builds, which `params` of a file must fit.

    Raises InputError naming the first tensor that is missing, unknown or of another shape.
    """
    graph, wanted, _ = nnx.split(abstract(make), nnx.Param, ...)
    compare_shapes(_shapes(nnx.to_pure_dict(wanted)), _shapes(params), str(path), "weights file")
    return graph
