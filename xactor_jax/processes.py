"""What the processes of one training agree on, so that none waits for one that has given up."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from xactor_jax.errors import InputError


def true_everywhere(value: bool) -> bool:
    """Whether `value` is true on all processes, which all must ask together."""
    return bool(np.all(multihost_utils.process_allgather(np.bool_(value))))


@contextlib.contextmanager
def together(failure: str) -> Generator[None]:
    """Around what a process does by itself, such as write a file, before all of them go on.

    All must come here, and compute nothing together inside. Where it fails its error is raised, and
    on the others InputError, which says `failure`.
    """
    try:
        yield
    except Exception:
        true_everywhere(False)
        raise
    if not true_everywhere(True):
        raise InputError(f"{failure} by another process, which says why")


def of_the_first(tree: Any) -> Any:
    """A tree of numpy arrays of the same shapes on all processes, with the values of process 0."""
    # One by one: all together would have to fit twice into the memory of a device.
    return jax.tree.map(multihost_utils.broadcast_one_to_all, tree)
