"""What the processes of one training agree on, so that none waits for one that has given up."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

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
