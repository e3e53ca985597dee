"""A compiled function of batches of one size, applied to as many items as there are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

SIZE = 32


def in_batches(
    function: Callable[[np.ndarray], np.ndarray], items: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
    """The function's value for each item, in constant memory; the last batch is filled up."""
    items = iter(items)
    while part := list(itertools.islice(items, SIZE)):
        filled = np.stack(part + part[:1] * (SIZE - len(part)))
        yield from np.asarray(function(filled))[: len(part)]
