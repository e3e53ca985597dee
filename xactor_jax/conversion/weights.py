"""Published weights become ready models: tables say which key is which parameter.

A table is data. Its rows pair a published module with one of ours and name what the module is,
which says how its arrays are laid out:

    RESNET = (
        Row("norm1", "norm1", NORM),
        Row("conv1", "conv1", LAYER),
    )
    TABLE = Table(
        (
            Row("conv_in", "conv_in", LAYER),
            *nested("down_blocks.{i}.resnets.{j}", "down/{i}/{j}/resnet", RESNET),
        ),
        unused=("*.num_batches_tracked",),
    )

`{i}` stands for a number, and for the same one on both sides. Our names are those of
`state.named_tensors`. Two rows may lead to one parameter where files name it in two ways, as long
as each file uses one of them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from xactor_jax.conversion.torch_file import read_torch_file
from xactor_jax.errors import InputError
from xactor_jax.nn.layers import abstract
from xactor_jax.state import named_tensors

Arrays = Mapping[str, np.ndarray]
M = TypeVar("M", bound=nnx.Module)

NAMES_SHOWN = 4  # in a message
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
SAFETENSORS_TYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def as_it_is(array: np.ndarray) -> np.ndarray:
    """The same array."""
    return array


def inputs_before_outputs(array: np.ndarray) -> np.ndarray:
    """Kernel of a linear layer or a convolution: (out, in, *places) -> (*places, in, out)."""
    return array.transpose(*range(2, array.ndim), 1, 0)


def pointwise(array: np.ndarray) -> np.ndarray:
    """Kernel of a linear layer, published as one or as a 1x1 convolution -> (in, out)."""
    return array.reshape(array.shape[:2]).T


# What a module is: published array -> our parameter and how to turn the one into the other.
Kind = Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]
LAYER: Kind = {"weight": ("kernel", inputs_before_outputs), "bias": ("bias", as_it_is)}
POINTWISE: Kind = {"weight": ("kernel", pointwise), "bias": ("bias", as_it_is)}
NORM: Kind = {"weight": ("scale", as_it_is), "bias": ("bias", as_it_is)}
BATCH_NORM: Kind = {
    **NORM,
    "running_mean": ("mean", as_it_is),
    "running_var": ("var", as_it_is),
}
ARRAY: Kind = {"": ("", as_it_is)}  # the row names the array itself


class Row(NamedTuple):
    """One published module and ours."""

    published: str
    ours: str
    kind: Kind


def nested(published: str, ours: str, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of a part that lies inside a larger module."""
    return tuple(
        Row(_join(published, row.published, "."), _join(ours, row.ours, "/"), row.kind)
        for row in rows
    )


def _join(left: str, right: str, separator: str) -> str:
    return separator.join(part for part in (left, right) if part)


@dataclasses.dataclass(frozen=True)
class Table:
    """How the arrays of one network are published.

    rows: modules; the first row that fits a key counts.
    unused: patterns (`*` is anything) of published keys that have no parameter here, such as fixed
      tables that are computed and counters of training.
    """

    rows: tuple[Row, ...]
    unused: tuple[str, ...] = ()

    def arrays(self) -> Iterator[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]:
        """Published pattern, our pattern and transform of every array."""
        for row in self.rows:
            for suffix, (name, transform) in row.kind.items():
                yield _join(row.published, suffix, "."), _join(row.ours, name, "/"), transform

    def is_unused(self, key: str) -> bool:
        """Whether a published key is knowingly left out."""
        return any(fnmatchcase(key, pattern) for pattern in self.unused)


class _Pattern:
    """A name with `{i}` in place of numbers."""

    def __init__(self, template: str):
        self.template = template
        parts = re.split(r"\{(\w+)\}", template)
        self._regex = re.compile(
            "".join(
                f"(?P<{part}>\\d+)" if n % 2 else re.escape(part) for n, part in enumerate(parts)
            )
        )

    def numbers(self, name: str) -> dict[str, str] | None:
        """The numbers in `name`, or None where it is another name."""
        match = self._regex.fullmatch(name)
        return None if match is None else match.groupdict()


def apply_table(
    table: Table,
    arrays: Arrays,
    tree: Any,
    where: str = "weights",
    keep: Callable[[np.ndarray], Any] = as_it_is,
) -> dict[str, Any]:
    """Arrays under published names -> a nested dict like `tree`.

    Args:
      table: which key is which parameter.
      arrays: under the published names. Nothing is copied: what comes back are views of them.
      tree: nested dict of arrays, or of their shapes, that all must be filled.
      where: where the arrays are from, for messages.
      keep: what is kept of an array, called one by one: arrays may come from a lazy mapping.

    Raises:
      InputError: a key is unknown, two keys name one parameter, a parameter has no key, or an array
        has another shape than its parameter. One line says which and how many.
    """
    wanted = named_tensors(tree)
    patterns = [
        (_Pattern(published), ours, transform) for published, ours, transform in table.arrays()
    ]
    filled: dict[str, Any] = {}
    sources: dict[str, str] = {}
    unknown, misshaped, twice = [], [], []
    for key, array in arrays.items():
        found = _place(patterns, key, wanted)
        if found is None:
            if not table.is_unused(key):
                unknown.append(key)
            continue
        name, transform = found
        if name in filled:
            twice.append(f"{key} and {sources[name]}")
        placed = _reshaped(transform, array)
        if placed is None or placed.shape != wanted[name].shape:
            misshaped.append(f"{key} {tuple(array.shape)} for {name} {wanted[name].shape}")
        else:
            filled[name] = keep(placed)
        sources[name] = key
    missing = [_published(table, name) for name in wanted if name not in sources]
    faults = (
        ("lack", missing),
        ("have the unknown", unknown),
        ("have in another shape", misshaped),
        ("have twice", twice),
    )
    said = "; ".join(f"{fault} {_some(names)}" for fault, names in faults if names)
    if said:
        raise InputError(
            f"{where}: these are not the published weights of this network: they {said}"
        )
    return jax.tree.unflatten(jax.tree.structure(tree), [filled[name] for name in wanted])


def _place(patterns, key: str, wanted: Mapping[str, Any]):
    for published, ours, transform in patterns:
        numbers = published.numbers(key)
        if numbers is not None and (name := ours.format(**numbers)) in wanted:
            return name, transform
    return None


def _reshaped(transform, array: np.ndarray) -> np.ndarray | None:
    try:
        return transform(array)
    except ValueError:
        return None


def _published(table: Table, name: str) -> str:
    """The published key of a parameter, or its own name where no row leads to it."""
    for published, ours, _ in table.arrays():
        numbers = _Pattern(ours).numbers(name)
        if numbers is not None:
            return published.format(**numbers)
    return name


def _some(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown} and {rest} more" if rest > 0 else shown


def build_model(make: Callable[[nnx.Rngs], M], table: Table, arrays: Arrays) -> M:
    """The module that `make` builds, with published weights in fp32.

    Raises InputError as `apply_table` does.
    """
    graph, state = nnx.split(abstract(make))
    tree = nnx.to_pure_dict(state)
    filled = apply_table(table, arrays, tree, keep=lambda array: jnp.array(array, jnp.float32))
    nnx.replace_by_pure_dict(state, filled)
    return nnx.merge(graph, state)


def convert_state(
    make: Callable[[nnx.Rngs], nnx.Module], table: Table, arrays: Arrays, where: str
) -> dict[str, Any]:
    """What a weights file of the module that `make` builds holds; views of `arrays`.

    Returns {"params": nested dict, "statistics": nested dict, which most networks have empty}.
    Raises InputError as `apply_table` does.
    """
    state = nnx.state(abstract(make))
    filled = apply_table(table, arrays, nnx.to_pure_dict(state), where)
    nnx.replace_by_pure_dict(state, filled)
    params, statistics = nnx.split_state(state, nnx.Param, ...)
    return {"params": nnx.to_pure_dict(params), "statistics": nnx.to_pure_dict(statistics)}


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a weights file, or of a folder that holds one or its shards, by their names.

    Reads safetensors, and the files that torch.save writes (.pth, .pt, .bin) without running
    anything in them. Arrays keep their type and are views of the file, so reading takes no memory.

    Raises:
      InputError: a file is missing, damaged, of another format, or is more than arrays.
    """
    arrays: dict[str, np.ndarray] = {}
    for file in weight_files(Path(path)):
        read = _read_safetensors if file.suffix == ".safetensors" else read_torch_file
        arrays.update(read(file))
    return arrays


def weight_files(path: Path) -> list[Path]:
    """The files that `read_arrays` reads: `path`, or the weights in the folder `path`.

    Raises InputError where there is no such file or no telling which is meant.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path}: give a file that ends in {', '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    indices = sorted(path.glob("*.index.json"))
    for found in (indices, *(sorted(path.glob(f"*{suffix}")) for suffix in SUFFIXES)):
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise InputError(f"{path}: holds several weights ({names}); give one of these files")
        if found:
            return _shards(found[0]) if found is indices else found
    raise InputError(f"{path}: no weights in this folder ({', '.join(SUFFIXES)})")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        files = [index.parent / Path(name).name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{index}: not an index of weight files") from None
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: missing, though {index.name} names it")
    return files


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy"):  # checks the header and the length
            pass
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None
    contents = np.memmap(path, np.uint8, "r")
    start = 8 + int(contents[:8].view("<u8")[0])
    header = json.loads(contents[8:start].tobytes())
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] not in SAFETENSORS_TYPES:
            raise InputError(f"{path}: {name} is of the type {entry['dtype']}, which is not read")
        first, last = (start + offset for offset in entry["data_offsets"])
        dtype = SAFETENSORS_TYPES[entry["dtype"]]
        arrays[name] = contents[first:last].view(dtype).reshape(entry["shape"])
    return arrays
