"""The one pytree that training changes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything a training step reads and replaces.

    step: optimiser updates done so far.
    params: nested dict of fp32 master weights.
    ema: exponential moving average of `params`, same structure, fp32.
    opt_state: the optax state.
    """

    step: Int[Array, ""]
    params: Any
    ema: Any
    opt_state: Any


def parameter_count(params: Any) -> int:
    """Number of scalars in a nested dict of arrays (or of their shapes)."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def tensor_name(path: tuple) -> str:
    """A tree path as the plain name used by rules, checkpoints and messages: "blocks/0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_tensors(tree: Any) -> dict[str, Any]:
    """Flatten a tree to {"blocks/0/kernel": leaf}, in the tree's own order."""
    return {tensor_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def digest(weights: Any) -> str:
    """Names a network's weights by their values, whether stored in half precision or not."""
    found = hashlib.sha256()
    for name, array in sorted(named_tensors(weights).items()):
        found.update(name.encode() + np.asarray(array, np.float16).tobytes())
    return found.hexdigest()[:16]
