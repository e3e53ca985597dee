"""From a random-access index of examples to endless global batches on the mesh, with Grain.

Row r of batch k is example k * batch_size + r of one endless shuffled order, whatever the mesh and
the number of processes: each process reads the rows that its devices hold. The order, the draws of
every example and the position depend on the seed and the count of examples taken alone, so a
training that resumes on other machines sees the very same batches.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grain
import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding

from xactor_jax.errors import InputError
from xactor_jax.sharding import batch_sharding, check_batch

# Examples read ahead, in batches: enough to hide one slow read, little enough for long windows.
BATCHES_AHEAD = 2
# Deaths of reading processes, one after another without a batch between, before training stops.
WORKER_DEATHS = 3

Load = Callable[[Any, np.random.Generator], dict[str, np.ndarray]]


class Source(Protocol):
    """A random-access index of examples: small values that say what `load` is to read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class _Rows:
    """Some rows of all batches from example `start` on, one after another: a source for Grain."""

    def __init__(
        self, examples: grain.MapDataset, batch_size: int, rows: Sequence[int], start: int
    ):
        self._examples, self._batch_size, self._rows = examples, batch_size, tuple(rows)
        self._start = start

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Any:
        batch, row = divmod(index, len(self._rows))
        return self._examples[self._start + batch * self._batch_size + self._rows[row]]


class LocalBatches:
    """One process's rows of the endless batches: dicts of arrays of len(rows) rows, in order.

    Every epoch shuffles anew and `load(source[i], rng)` draws anew. A position is the same on every
    process and may be taken up by any number of them.
    rows: which of the batch_size rows of a batch this process reads; threads: reading threads in
    this process; workers: reading processes of that many threads instead, when not 0.
    """

    def __init__(
        self,
        source: Source,
        load: Load,
        *,
        batch_size: int,
        rows: Sequence[int],
        seed: int,
        threads: int = 4,
        workers: int = 0,
    ):
        order = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)
        self._examples = order.random_map(load)
        self._batch_size, self._rows = batch_size, rows
        self._threads, self._workers = threads, workers
        self._taken = 0
        self._deaths = 0
        self._iterator: grain.DatasetIterator | None = None

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        while True:
            self._iterator = self._iterator or self._start()
            try:
                batch = next(self._iterator)
            except RuntimeError as error:
                self._bury(error)
                continue
            self._taken += self._batch_size
            self._deaths = 0
            return batch

    def _start(self) -> grain.DatasetIterator:
        source = _Rows(self._examples, self._batch_size, self._rows, self._taken)
        examples = grain.MapDataset.source(source)
        count = len(self._rows)
        if not self._workers:
            ahead = max(BATCHES_AHEAD * count, self._threads)
            return iter(examples.to_iter_dataset(self._reading(ahead)).batch(count))
        # A reading process takes whole batches, so that their order does not depend on how many.
        batches = examples.batch(count).to_iter_dataset(self._reading(BATCHES_AHEAD))
        return iter(batches.mp_prefetch(grain.MultiprocessingOptions(self._workers)))

    def _reading(self, ahead: int) -> grain.ReadOptions:
        return grain.ReadOptions(min(self._threads, ahead), prefetch_buffer_size=ahead)

    def _bury(self, error: RuntimeError) -> None:
        """Make ready to read on with new reading processes, if `error` says that one has died."""
        if "process was terminated" not in str(error):
            raise error
        self._deaths += 1
        reason = str(error).split(". ")[0]
        if self._deaths == WORKER_DEATHS:
            raise InputError(
                f"reading processes die again and again ({reason}; -9 is often a lack of memory); "
                f"lower config.read_workers={self._workers} or set it to 0, and run again"
            ) from error
        logging.error("a reading process died (%s); reading on with new ones", reason)
        self.close()

    def position(self) -> dict[str, Any]:
        """JSON values from which `seek` continues with the batch after the last one returned."""
        return {"global_next_index": self._taken}

    def seek(self, position: dict[str, Any]) -> None:
        """Continue from a saved position, also one of another number of processes."""
        self.close()
        self._taken = position["global_next_index"]

    def close(self) -> None:
        """End the reading threads and processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def rows_here(sharding: NamedSharding, batch_size: int) -> set[int]:
    """The rows of a batch that the devices of this process hold."""
    parts = sharding.addressable_devices_indices_map((batch_size,)).values()
    return {row for part in parts if part for row in range(batch_size)[part[0]]}


class Batches:
    """Endless global batches as arrays on the mesh, with a position that can be saved.

    Raises InputError for an empty source, a batch that the mesh does not divide, and reading
    processes that keep dying.
    """

    def __init__(
        self,
        source: Source,
        load: Load,
        mesh: Mesh,
        *,
        batch_size: int,
        seed: int,
        threads: int = 4,
        workers: int = 0,
    ):
        if len(source) == 0:
            raise InputError(
                "no training example: the data has no clip as long as a window; "
                "prepare longer clips or choose a shorter window in the config"
            )
        check_batch(batch_size, mesh)
        self.examples = len(source)
        self._batch_size = batch_size
        self._sharding = batch_sharding(mesh)
        rows = sorted(rows_here(self._sharding, batch_size))
        self._local_rows = {row: place for place, row in enumerate(rows)}
        self._local = LocalBatches(
            source,
            load,
            batch_size=batch_size,
            rows=rows,
            seed=seed,
            threads=threads,
            workers=workers,
        )

    def __iter__(self) -> Iterator[dict[str, jax.Array]]:
        return self

    def __next__(self) -> dict[str, jax.Array]:
        return {name: self._place(rows) for name, rows in next(self._local).items()}

    def _place(self, local: np.ndarray) -> jax.Array:
        """The global array of which this process has read the rows `local`."""

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            on_device, *rest = index or ()
            rows = range(self._batch_size)[on_device]
            first = self._local_rows[rows[0]]
            return local[(slice(first, first + len(rows)), *rest)]

        shape = (self._batch_size, *local.shape[1:])
        return jax.make_array_from_callback(shape, self._sharding, part)

    def position(self) -> dict[str, Any]:
        """JSON values from which `seek` continues with the batch after the last one returned."""
        return self._local.position()

    def seek(self, position: dict[str, Any]) -> None:
        """Continue from a saved position, also one of another mesh or number of processes."""
        self._local.seek(position)

    def close(self) -> None:
        """End the reading threads and processes."""
        self._local.close()
