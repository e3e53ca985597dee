"""Published networks that come in one file and tell their sizes by the shapes of their arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from flax import nnx

from xactor_jax.conversion.output import Network, write_networks
from xactor_jax.conversion.weights import (
    Arrays,
    Table,
    build_model,
    convert_state,
    read_arrays,
    weight_files,
)

M = TypeVar("M", bound=nnx.Module)


class Published(NamedTuple, Generic[M]):
    """A network recognised by its arrays.

    config: its sizes, a dataclass.
    make: builds it.
    arrays: under the published names, as `table` reads them.
    """

    config: Any
    make: Callable[[nnx.Rngs], M]
    table: Table
    arrays: Arrays

    def model(self) -> M:
        """The network with these arrays as its parameters; raises InputError as `apply_table`."""
        return build_model(self.make, self.table, self.arrays)


def convert(
    name: str, recognise: Callable[[Arrays, str], Published], source: Path, output: Path
) -> list[Path]:
    """Write the network of the file or folder `source` into the folder `output`, as `name`.

    Raises InputError for a missing, damaged or foreign file.
    """
    config = recognise(read_arrays(source), str(source)).config

    def state(arrays: Arrays, where: str) -> dict[str, Any]:
        found = recognise(arrays, where)
        return convert_state(found.make, found.table, found.arrays, where)

    network = Network(name, config, tuple(weight_files(source)), state)
    return write_networks(output, name, [network])
