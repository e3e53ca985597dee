"""From a random-access index of examples to endless global batches on the mesh, with Grain.

The order, the draws of every example and the position depend on the seed and the count of examples
taken alone, so a training that resumes on another number of processes sees the same batches (with
the rows of a batch in another order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from xactor_jax.errors import InputError
from xactor_jax.sharding import batch_sharding, check_batch

# Examples read ahead, in batches: enough to hide one slow read, little enough for long windows.
BATCHES_AHEAD = 2

Load = Callable[[Any, np.random.Generator], dict[str, np.ndarray]]


class Source(Protocol):
    """A random-access index of examples: small values that say what `load` is to read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def local_batches(
    source: Source,
    load: Load,
    *,
    batch_size: int,
    seed: int,
    process: int = 0,
    processes: int = 1,
    threads: int = 4,
    workers: int = 0,
) -> grain.DatasetIterator:
    """One process's share of the endless batches: dicts of arrays of batch_size / processes rows.

    Every epoch shuffles anew and `load(source[i], rng)` draws anew. The iterator's `get_state` is
    the same on every process and may be set on any number of them.
    threads: reading threads in this process; workers: reading processes instead, when not 0.
    """
    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None).random_map(load)
    ahead = BATCHES_AHEAD * batch_size // processes
    return iter(
        grain.experimental.ElasticIterator(
            dataset,
            batch_size,
            grain.sharding.ShardOptions(process, processes),
            read_options=grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead),
            multiprocessing_options=grain.MultiprocessingOptions(workers) if workers else None,
        )
    )


class Batches:
    """Endless global batches as arrays on the mesh, with a position that can be saved.

    Raises InputError for an empty source, or a batch that the mesh or the processes do not divide.
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
        check_batch(batch_size, mesh, jax.process_count())
        self._sharding = batch_sharding(mesh)
        self._iterator = local_batches(
            source,
            load,
            batch_size=batch_size,
            seed=seed,
            process=jax.process_index(),
            processes=jax.process_count(),
            threads=threads,
            workers=workers,
        )

    def __iter__(self) -> Iterator[dict[str, jax.Array]]:
        return self

    def __next__(self) -> dict[str, jax.Array]:
        place = jax.make_array_from_process_local_data
        return {name: place(self._sharding, rows) for name, rows in next(self._iterator).items()}

    def position(self) -> dict[str, Any]:
        """JSON values from which `seek` continues with the batch after the last one returned."""
        return self._iterator.get_state()

    def seek(self, position: dict[str, Any]) -> None:
        """Continue from a saved position, also one of another number of processes."""
        self._iterator.set_state(position)

    def close(self) -> None:
        """End the reading threads and processes."""
        self._iterator.close()
