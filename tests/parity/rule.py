"""Weights made by a rule: golden files need no weight file beside them.

The networks of the golden files had weights drawn by a generator that each array's name seeds, so
the same arrays are made here, converted, and the outputs compared.
"""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"


def rule_input(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The network input of that name, normally distributed."""
    return _normal(salt, f"input/{name}", shape)


def rule_array(salt: str, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of one state-dict key.

    Counters and fixed position tables are no part of the rule, nor read by the converter: zeros.
    """
    if is_fixed(key):
        return np.zeros(shape, np.float32)
    z = _normal(salt, key, shape)
    if key.endswith("running_mean"):
        return np.float32(0.1) * z
    if key.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(z)
    if len(shape) >= 2:
        return z / np.float32(np.sqrt(np.prod(shape[1:])))
    if key.endswith("weight"):
        return 1 + np.float32(0.1) * z
    return np.float32(0.02) * z


def is_fixed(key: str) -> bool:
    """Whether the network builds the array itself."""
    table = "pos_embed" in key and not key.endswith(
        ("pos_embed.proj.weight", "pos_embed.proj.bias")
    )
    return key.endswith("num_batches_tracked") or key.split(".")[-1] == "pe" or table


def rule_arrays(salt: str, shapes: Mapping[str, tuple[int, ...]]) -> "RuleArrays":
    """The arrays of a whole state dict, each made when it is asked for."""
    return RuleArrays(salt, shapes)


class RuleArrays(Mapping[str, np.ndarray]):
    """Arrays by key; none is kept, since the largest networks fit into memory hardly once."""

    def __init__(self, salt: str, shapes: Mapping[str, tuple[int, ...]]):
        self._salt, self._shapes = salt, shapes

    def __getitem__(self, key: str) -> np.ndarray:
        return rule_array(self._salt, key, self._shapes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def key_list(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of golden/`name`.txt.gz, whose lines read "key (1, 2)"."""
    lines = gzip.decompress((GOLDEN / f"{name}.txt.gz").read_bytes()).decode().splitlines()
    pairs = (line.split(" ", 1) for line in lines)
    return {
        key: tuple(int(size) for size in shape.strip("()").split(",") if size.strip())
        for key, shape in pairs
    }


def _normal(salt: str, key: str, shape: tuple[int, ...]) -> np.ndarray:
    seed = hashlib.sha256(f"{salt}/{key}".encode()).digest()[:8]
    draw = np.random.default_rng(int.from_bytes(seed, "little"))
    return draw.standard_normal(shape).astype(np.float32)
