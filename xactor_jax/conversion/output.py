"""Converted networks on disk: one weights file each, and a manifest of hashes beside them.

The files are those of `checkpoint.save_weights`, written array by array: the largest networks fit
into memory hardly once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xactor_jax.checkpoint import METADATA_KEY
from xactor_jax.conversion.weights import Arrays, read_arrays
from xactor_jax.errors import InputError
from xactor_jax.progress import progress
from xactor_jax.state import named_tensors


class Network(NamedTuple):
    """One network to convert.

    name: its kind, and the name of its file.
    config: its sizes, a dataclass.
    files: where its arrays are; of a key in two of them the last counts.
    convert: (arrays, where they are from) -> {"params": ..., "statistics": ...}, as
      `weights.convert_state` gives.
    """

    name: str
    config: Any
    files: tuple[Path, ...]
    convert: Callable[[Arrays, str], dict[str, Any]]


def write_networks(output: Path, kind: str, networks: Iterable[Network]) -> list[Path]:
    """Write `name`.safetensors of every network, fp32, and `kind`.manifest.json into a folder.

    The manifest holds the SHA-256 of each source file and of the bytes of each converted array.
    A file appears when it is whole; returns the files.

    Raises InputError as `read_arrays` and `apply_table` do, or if `output` cannot be written.
    """
    manifest: dict[str, Any] = {"kind": kind, "sources": {}, "networks": {}}
    written = []
    for network in networks:
        arrays: dict[str, np.ndarray] = {}
        for file in network.files:
            arrays |= read_arrays(file)
        where = " and ".join(str(file) for file in network.files)
        tensors = named_tensors(network.convert(arrays, where))
        metadata = {"kind": network.name, network.name: dataclasses.asdict(network.config)}
        path = output / f"{network.name}.safetensors"
        try:
            manifest["networks"][path.name] = _write_arrays(path, tensors, metadata)
            manifest["sources"] |= {file.name: _hash(file) for file in network.files}
        except OSError as error:
            raise InputError(f"{error.filename or path}: {error.strerror}") from None
        written.append(path)
    path = output / f"{kind}.manifest.json"
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    return [*written, path]


def _hash(file: Path) -> str:
    with file.open("rb") as contents:
        return hashlib.file_digest(contents, "sha256").hexdigest()


def _write_arrays(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> dict[str, str]:
    """Write one safetensors file of fp32 arrays; returns the hash of each array."""
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: json.dumps(metadata)}}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + 4 * array.size
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [start, end]}
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    hashes = {}
    try:
        with unfinished.open("wb") as file, progress(path.stem, len(tensors), "arrays") as advance:
            file.write(len(described).to_bytes(8, "little") + described)
            for name, array in tensors.items():
                stored = array.astype("<f4").tobytes()
                hashes[name] = hashlib.sha256(stored).hexdigest()
                file.write(stored)
                advance(1)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return hashes
