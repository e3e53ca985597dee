"""What survives a training: resumable checkpoints (Orbax) and weight files (safetensors).

Everything that Orbax v1 is asked for lies here, since its names still move.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from orbax.checkpoint import v1 as ocp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from xactor_jax.config import build
from xactor_jax.errors import InputError
from xactor_jax.nn.layers import abstract
from xactor_jax.sharding import to_host
from xactor_jax.state import named_tensors

T = TypeVar("T")
M = TypeVar("M", bound=nnx.Module)
CHECKPOINTS_KEPT = 2
METADATA_KEY = "xactor_jax"


class Checkpoints:
    """The checkpoints of one training, in one folder; use it as a context manager.

    A checkpoint appears under its final name only when it is whole, so a kill at any moment leaves
    the one before. Saving copies the state to the host and writes it in the background.
    """

    def __init__(self, folder: Path):
        training = ocp.training
        self._folder = folder
        self._checkpointer = training.Checkpointer(
            str(folder.absolute()),
            preservation_policy=training.preservation_policies.LatestN(CHECKPOINTS_KEPT),  # pyrefly: ignore[bad-argument-type]
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self._checkpointer.close()

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Start to write `state` (a tree of arrays) and `meta` (JSON values) as one checkpoint."""
        meta = {**meta, "shapes": _shapes(state)}
        self._checkpointer.save_checkpointables_async(
            step, {"state": state, "meta": meta}, force=True
        )

    def restore(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """The newest checkpoint's tree and meta, laid out like `state`.

        state: tree of `jax.ShapeDtypeStruct` with shardings, of any mesh.
        Raises InputError naming the first tensor that the checkpoint has in another shape or lacks.
        """
        step = self.latest()
        meta = self._checkpointer.load_checkpointables(step, {"meta": None})["meta"]
        where = f"checkpoint {self._folder / str(step)}"
        compare_shapes(_shapes(state), meta.pop("shapes"), where, "--workdir")
        return self._checkpointer.load_checkpointables(step, {"state": state})["state"], meta

    def wait(self) -> None:
        """Return when everything saved is on disk."""
        self._checkpointer.wait()


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
    Raises ValueError for a value that float16 cannot hold.
    """
    tensors = named_tensors(to_host(params))
    arrays = {name: _stored(name, array, dtype) for name, array in tensors.items()}
    if jax.process_index() != 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        save_file(arrays, unfinished, {METADATA_KEY: json.dumps(metadata)})
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _stored(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    if not jax.numpy.issubdtype(array.dtype, np.floating):
        return np.ascontiguousarray(array)
    if dtype == "float16" and array.size and np.abs(array.astype(np.float32)).max() > 65504:
        raise ValueError(f"{name} has values that float16 cannot hold")
    return np.ascontiguousarray(array.astype(dtype))


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
