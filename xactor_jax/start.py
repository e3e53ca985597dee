"""What a training starts from: a weights file, or its newest checkpoint and what goes with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from xactor_jax.checkpoint import Checkpoints, compare_shapes, load_weights, save_weights
from xactor_jax.data.pipeline import Batches
from xactor_jax.processes import of_the_first, true_everywhere
from xactor_jax.sharding import tensor_shardings
from xactor_jax.state import TrainState, named_tensors

FROZEN_FILE = "frozen.safetensors"


def fitted(found: Any, template: Any, where: str, cure: str) -> Any:
    """The tensors of a nested dict, laid out like `template`, a tree of arrays or shapes.

    Raises InputError naming the first tensor that is missing, too many or of another shape.
    """
    tensors, wanted = named_tensors(found), named_tensors(template)
    compare_shapes(
        {name: list(leaf.shape) for name, leaf in wanted.items()},
        {name: list(array.shape) for name, array in tensors.items()},
        where,
        cure,
    )
    leaves = [tensors[name].astype(leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def read_initial_weights(path: str, task: Any, template: Any) -> Any:
    """The parameters in a weights file, laid out like `template`, a tree of shapes.

    Of a task that exports more than it learns: its `learnt_part` of them.
    Raises InputError naming the first tensor that the file lacks, has too many or in another shape.
    """
    arrays = load_weights(Path(path))[0]
    # Beside its parameters a task may export what it computed from its data.
    params = arrays.get("params", arrays)
    if hasattr(task, "learnt_part"):
        params = task.learnt_part(params)
    return fitted(params, template, path, "config.initial_weights")


def first_state(
    task: Any,
    make: Callable[[PRNGKeyArray, Any], TrainState],
    key: PRNGKeyArray,
    mesh: Mesh,
    checkpoints: Checkpoints,
    batches: Batches,
    config: Any,
) -> tuple[TrainState, dict[str, Any]]:
    """The state to go on from, on the mesh, and the totals of a Recorder: those of the newest
    checkpoint (and `batches` moved to its position), else step 0 with weights from a file or new
    ones, and {}.

    make: (key, given parameters or None) -> the state of step 0.
    """
    shapes = jax.eval_shape(make, key, None)
    shardings = tensor_shardings(shapes, mesh)
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    found = checkpoints.restore(placed)
    if found is None:
        path = config.initial_weights
        given = read_initial_weights(path, task, shapes.params) if path else None
        return jax.jit(make, out_shardings=shardings)(key, given), {}
    state, meta = found
    _note_changes(meta, {"examples": batches.examples, "seed": config.seed})
    batches.seek(meta["batches"])
    return state, meta.get("totals", {})


def _note_changes(meta: dict[str, Any], now: dict[str, int]) -> None:
    """Warn where batches will not be those that the training would have seen undisturbed."""
    before = {"seed": meta.get("config", {}).get("seed"), "examples": meta.get("examples")}
    for name, value in now.items():
        if before[name] not in (None, value):
            logging.warning(
                "%s: %s now, %s before; the order of the data is another from here on",
                name,
                value,
                before[name],
            )


def kept_frozen(measured: Any, workdir: Path, is_new: bool) -> Any:
    """What the loss reads and training never changes, as it was when this training began.

    measured: of the present data, which may have changed since; weights fit what they learnt with.
    Of several processes, which must all call it, the first one's counts: machines of another make
    may round otherwise. A training from before this was kept goes on with what is measured now.
    Raises InputError for a file that does not fit or cannot be written.
    """
    path = workdir / FROZEN_FILE
    if not is_new and true_everywhere(path.exists()):
        return fitted(load_weights(path)[0], measured, str(path), "--workdir")
    measured = of_the_first(measured)
    save_weights(path, measured, {"kind": "frozen"})
    return measured
