"""What a compiled program moves, read from its text: between devices, and from and to memory.

A loop's body counts as often as it runs. XLA's own cost analysis counts it once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Between slices of TPUs the hosts exchange: programs hand them data, and say what it is for.
_BY_HOSTS = {
    "ALL_GATHER": "all-gather",
    "ALL_REDUCE": "all-reduce",
    "REDUCE_SCATTER": "reduce-scatter",
    "ALL_TO_ALL": "all-to-all",
    "ONE_TO_ONE": "collective-permute",
}

_TENSOR = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "token": 0, "opaque": 0}
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"}
_FAST = "S(1)"  # of a layout: in the core's own memory


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    kind: str  # what it does
    result: str  # its type
    operands: tuple[str, ...]  # names of instructions of the same computation
    rest: str  # attributes

    def attribute(self, name: str) -> str | None:
        """The computation that an attribute names."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found and found[1]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices, as one device sees it."""

    kind: str
    times: int  # in one run of the program
    sent: float  # bytes, each time
    groups: np.ndarray | None  # positions of devices in the mesh, a row a group; None: unknown
    between_slices: bool = False  # made by the hosts of all slices


class Program:
    """The text of a compiled program for so many slices of TPUs; one: also for other devices."""

    def __init__(self, text: str, slices: int = 1):
        self.slices = slices
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = self.computations.setdefault(header[2], {})
                self.entry = header[2] if header[1] else self.entry
            elif current is not None and " = " in line:
                instruction = _instruction(line)
                current[instruction.name] = instruction

    @functools.cached_property
    def times(self) -> dict[str, int]:
        """How often each computation runs; those inside fused kernels are left out."""
        found: dict[str, int] = defaultdict(int)

        def visit(name: str, times: int) -> None:
            found[name] += times
            for instruction in self.computations.get(name, {}).values():
                if instruction.kind == "while":
                    visit(str(instruction.attribute("body")), times * self._trips(instruction))
                elif instruction.kind in ("call", "async-start"):
                    for attribute in ("to_apply", "calls"):
                        if inner := instruction.attribute(attribute):
                            visit(inner, times)
                elif instruction.kind == "conditional":
                    for inner in _branches(instruction):
                        visit(inner, times)

        visit(self.entry, 1)
        return dict(found)

    def _trips(self, loop: Instruction) -> int:
        """How often a loop runs: what the compiler notes, or the constant it counts up to."""
        if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(noted[1])
        condition = self.computations.get(str(loop.attribute("condition")), {})
        constants = [i for i in condition.values() if i.kind == "constant" and "s32[]" in i.result]
        return int(constants[0].operands[0]) if len(constants) == 1 else 1

    @functools.cached_property
    def collectives(self) -> list[Collective]:
        """Every exchange. What is split into the parts of several kernels counts once."""
        found: dict[str, Collective] = {}
        for computation, times in self.times.items():
            for instruction, inside in self._with_fused(computation):
                kind = _exchange(instruction)
                if kind is None:
                    continue
                between = instruction.kind == "send"
                groups = _groups(instruction.rest)
                n = 1 if groups is None else groups.shape[1]
                sent = self._sent(kind, instruction, inside, self.slices if between else n)
                channel = re.search(r"channel_id=(\d+)", instruction.rest)
                # Channels to hosts are numbered by themselves.
                found.setdefault(
                    channel[1] if channel and not between else instruction.name,
                    Collective(kind, times, sent, groups, between),
                )
        return list(found.values())

    def _with_fused(self, computation: str) -> Iterator[tuple[Instruction, dict[str, Instruction]]]:
        inside = self.computations.get(computation, {})
        for instruction in inside.values():
            yield instruction, inside
            if instruction.kind == "fusion":
                yield from self._with_fused(str(instruction.attribute("calls")))

    def _sent(
        self, kind: str, instruction: Instruction, inside: dict[str, Instruction], n: int
    ) -> float:
        """Bytes that one of n devices, or slices, sends, by the usual algorithms on a ring."""
        given = sum(_size(inside[name].result) for name in instruction.operands if name in inside)
        if kind == "collective-permute":
            return given
        share = {"all-gather": n - 1, "all-reduce": 2 * (n - 1) / n}
        return given * share.get(kind, (n - 1) / n)

    @functools.cached_property
    def traffic(self) -> int:
        """Bytes that a device reads from and writes to its memory in one run."""
        return sum(
            times * self._moved(instruction, inside)
            for name, times in self.times.items()
            for inside in (self.computations.get(name, {}),)
            for instruction in inside.values()
        )

    def _moved(self, instruction: Instruction, inside: dict[str, Instruction]) -> int:
        kind = instruction.kind
        if kind in _FREE or kind.endswith("-done") or kind in ("call", "async-start"):
            return 0
        sizes = [
            _size(inside[name].result, slow=True) if name in inside else 0
            for name in instruction.operands
        ]
        result = _size(instruction.result, slow=True)
        if kind in ("dynamic-slice", "slice", "gather"):
            return 2 * result
        if kind == "dynamic-update-slice":
            return 2 * sizes[1]
        if kind.endswith("-start"):
            return 2 * sum(sizes[:1])
        if kind == "fusion":
            return self._of_kernel(instruction, sizes, result)
        return sum(sizes) + result

    def _of_kernel(self, fusion: Instruction, sizes: list[int], result: int) -> int:
        """What a fused kernel moves: of what it only takes slices of, the slices."""
        inside = self.computations.get(str(fusion.attribute("calls")), {})
        users: dict[str, list[Instruction]] = defaultdict(list)
        for instruction in inside.values():
            for name in instruction.operands:
                users[name].append(instruction)
        total = 0
        for parameter in inside.values():
            if parameter.kind != "parameter" or int(parameter.operands[0]) >= len(sizes):
                continue
            uses, size = users[parameter.name], sizes[int(parameter.operands[0])]
            if uses and all(use.kind in ("dynamic-slice", "gather") for use in uses):
                size = min(size, sum(_size(use.result) for use in uses))
            elif uses and all(_updates(use, parameter.name) for use in uses):
                result -= size  # in place: only what is new is written
                size = sum(_size(inside[use.operands[1]].result) for use in uses) * 2
            total += size
        return total + max(result, 0)


def _exchange(instruction: Instruction) -> str | None:
    """The kind of exchange that an instruction is or begins; None of all others."""
    if instruction.kind == "send":
        purpose = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.rest)
        return purpose and _BY_HOSTS.get(purpose[1])
    kind = instruction.kind.removesuffix("-start")
    return kind if kind in COLLECTIVES else None


def _updates(use: Instruction, name: str) -> bool:
    return use.kind == "dynamic-update-slice" and use.operands[0] == name


def _branches(instruction: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
    if listed:
        return _NAME.findall(listed[1])
    pair = (instruction.attribute(f"{name}_computation") for name in ("true", "false"))
    return [name for name in pair if name]


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().removeprefix("ROOT ").partition(" = ")
    result, rest = _until_closed(rest) if rest.startswith("(") else rest.split(" ", 1)
    kind, _, rest = rest.strip().partition("(")
    inside, rest = _until_closed("(" + rest)
    if kind in ("parameter", "constant"):
        operands: tuple[str, ...] = (inside[1:-1],)
    else:
        operands = tuple(_NAME.findall(inside))
    return Instruction(name.lstrip("%"), kind.strip(), result, operands, rest)


def _until_closed(text: str) -> tuple[str, str]:
    """Text up to the parenthesis that closes its first, and what follows."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[: place + 1], text[place + 1 :]
    return text, ""


def _size(result: str, slow: bool = False) -> int:
    """Bytes of a type; slow: only of what lies in the device's large memory."""
    total = 0
    for dtype, shape, layout in _TENSOR.findall(result):
        if slow and _FAST in layout:
            continue
        number = re.search(r"\d+", dtype)
        bits = _BITS.get(dtype, int(number[0]) if number else 8)
        total += math.prod(int(n) for n in shape.split(",") if n) * bits
    return total // 8


def _groups(rest: str) -> np.ndarray | None:
    """The groups of devices of a collective, in any of the ways in which they are written."""
    if listed := re.search(r"replica_groups=\{(\{[\d,{} ]*\})\}", rest):
        rows = [row.split(",") for row in re.findall(r"\{([\d, ]+)\}", listed[1])]
        return np.array(rows, int) if len({len(row) for row in rows}) == 1 else None
    if counted := re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest
    ):
        shape = [int(n) for n in counted[3].split(",")]
        ids = np.arange(math.prod(shape)).reshape(shape)
        if counted[4]:
            ids = ids.transpose([int(n) for n in counted[4].split(",")])
        return ids.reshape(int(counted[1]), int(counted[2]))
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        axes = list(sizes)
        inner = [axis for axis in re.findall(r"'(\w+)'", named[2]) if axis in sizes]
        order = [axes.index(axis) for axis in axes if axis not in inner]
        order += [axes.index(axis) for axis in inner]
        ids = np.arange(math.prod(sizes.values())).reshape(list(sizes.values())).transpose(order)
        return ids.reshape(-1, math.prod(sizes[axis] for axis in inner))
    pairs = re.search(r"source_target_pairs=\{([\d,{} ]*)\}", rest)
    if pairs:
        return np.array([row.split(",") for row in re.findall(r"\{(\d+,\d+)\}", pairs[1])], int)
    return None
