"""What a training needs of each device: its real step, compiled for devices that need not exist."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.sharding import Mesh

from xactor_jax.errors import InputError
from xactor_jax.optim import make_optimizer
from xactor_jax.planning.chips import Chip
from xactor_jax.planning.model_flops import executed_flops, model_flops
from xactor_jax.planning.program import Collective, Program
from xactor_jax.sharding import batch_sharding, check_batch, replicated, tensor_shardings
from xactor_jax.state import parameter_count
from xactor_jax.tasks import ShapedObjective
from xactor_jax.train import jit_step, make_step, new_state

TRIES = 3  # compilations of a largest batch, from a guess downwards


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Bytes of one device by what they hold, and the program; none where it does not fit."""

    kinds: dict[str, int]
    flops: float  # of all devices, with what is computed again to save memory
    program: Program | None

    @property
    def total(self) -> int:
        """All bytes at once."""
        return sum(self.kinds.values())


class Planned:
    """A config's training on a mesh, as shapes."""

    def __init__(self, objective: ShapedObjective, config: Any, mesh: Mesh):
        self.objective, self.config, self.mesh = objective, config, mesh
        optimizer, schedule = make_optimizer(config.optimizer, config.steps)
        self.step = make_step(objective, optimizer, schedule, config)
        key = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
        state = jax.eval_shape(lambda key: new_state(objective, optimizer, key), key)
        self.state = _laid_out(state, tensor_shardings(state, mesh))
        frozen = objective.frozen_shapes
        self.frozen = _laid_out(frozen, tensor_shardings(frozen, mesh))
        self.key = _laid_out(key, replicated(mesh))

    @property
    def parameters(self) -> int:
        """Numbers that the networks have, learnt here or not."""
        return parameter_count(self.state.params) + parameter_count(self.frozen)

    @property
    def learnt(self) -> int:
        """Those that this training changes."""
        return parameter_count(self.state.params)

    @property
    def rows(self) -> int:
        """What a batch must be a multiple of."""
        return self.ways * self.config.optimizer.accumulate

    @property
    def ways(self) -> int:
        """Parts of a batch that devices compute beside each other."""
        return self.mesh.shape["replica"] * self.mesh.shape["fsdp"]

    def batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of so many examples."""
        check_batch(size, self.mesh, self.config.optimizer.accumulate)
        rows = {
            name: jax.ShapeDtypeStruct((size, *one.shape), one.dtype)
            for name, one in self.objective.example_shapes.items()
        }
        return _laid_out(rows, dict.fromkeys(rows, batch_sharding(self.mesh)))

    def compile_step(self, size: int) -> Compiled:
        """The training step for batches of so many examples.

        Raises InputError where the compiler fails for another reason than memory.
        """
        step = jit_step(self.step, self.state, self.mesh)
        return self._compiled(step, self.state, self.batch(size))

    def compile_sampler(self, size: int) -> Compiled:
        """What evaluation makes of so many examples, while the training's state is kept."""
        return self._compiled(jax.jit(self.objective.sampler), self.state.ema, self.batch(size))

    def _compiled(self, function: Any, given: Any, batch: Any) -> Compiled:
        kinds = {
            "parameters": _bytes(self.state.params),
            "averaged parameters": _bytes(self.state.ema),
            "optimizer": _bytes(self.state.opt_state),
            "frozen": _bytes(self.frozen),
            "batch": _bytes(batch),
        }
        arguments = (given, self.frozen, batch, self.key)
        platform = self.mesh.devices.flat[0].platform
        lowering = "cuda" if platform == "gpu" else platform
        with jax.set_mesh(self.mesh):
            traced = function.trace(*arguments)
            lowered = traced.lower(lowering_platforms=(lowering,))
        flops = executed_flops(traced.jaxpr.jaxpr)
        try:
            compiled = _compile(lowered, platform)
        except JaxRuntimeError as error:
            needed = _needed(str(error), _bytes((given, self.frozen, batch)))
            if needed is None:
                reason = " ".join(str(error).strip().splitlines()[0].split())
                raise InputError(
                    f"the compiler fails, and not for want of memory ({reason}); try another mesh"
                ) from error
            return Compiled({**kinds, "working memory": needed}, flops, None)
        memory = compiled.memory_analysis()
        working = memory.temp_size_in_bytes + memory.output_size_in_bytes
        working -= memory.alias_size_in_bytes
        # Tensors are padded to the tiles of the hardware.
        padding = memory.argument_size_in_bytes - _bytes((given, self.frozen, batch))
        kinds["working memory"] = working
        kinds["padding and program"] = max(padding, 0) + memory.generated_code_size_in_bytes
        return Compiled(kinds, flops, Program(compiled.as_text(), len(set(slices_of(self.mesh)))))

    def model_flops(self, size: int) -> float:
        """Of a step, by formula."""
        return model_flops(
            lambda *given: self.objective.loss(*given)[0],
            self.state.params,
            self.frozen,
            self.batch(size),
            self.key,
        )


# Any window of a convolution will do, not the fastest: the search for it is most of what compiling
# takes, and tensors and exchanges do not depend on it. Only the program is smaller without: in the
# full motion training by 54 MiB, 2 % of the memory.
_ANY_WINDOW: dict[str, bool | str] = {"xla_jf_convolution_performance_target": "0"}


def _compile(lowered: jax.stages.Lowered, platform: str) -> Any:
    if platform != "tpu":
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=_ANY_WINDOW)
    except JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return lowered.compile()  # a libtpu that has another name for it


def _laid_out(tree: Any, shardings: Any) -> Any:
    def one(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    if isinstance(shardings, jax.sharding.Sharding):
        return jax.tree.map(lambda leaf: one(leaf, shardings), tree)
    return jax.tree.map(one, tree, shardings)


def _bytes(tree: Any) -> int:
    """Of one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _needed(message: str, arguments: int) -> int | None:
    """Working memory that the compiler asked for in vain; None where it failed otherwise."""
    if found := re.search(r"temporaries \(([\d.]+)([KMGT]?)\)", message):
        return _amount(*found.groups())
    if found := re.search(r"Used ([\d.]+)([KMGT]?) of", message):
        return max(_amount(*found.groups()) - arguments, 0)
    return None


def _amount(number: str, unit: str) -> int:
    return int(float(number) * 1024 ** " KMGT".index(unit or " "))


def collectives(program: Program | None) -> dict[str, dict[str, float]] | None:
    """By kind: how many there are in the program, how often they run, and what a device sends."""
    if program is None:
        return None
    found: dict[str, dict[str, float]] = {}
    for one in program.collectives:
        total = found.setdefault(one.kind, {"count": 0, "runs": 0, "bytes": 0})
        total["count"] += 1
        total["runs"] += one.times
        total["bytes"] += round(one.times * one.sent)
    return dict(sorted(found.items()))


def roofline(step: Compiled, mesh: Mesh, chip: Chip) -> dict[str, float] | None:
    """Seconds that each resource of a device is busy in a step at its peak rate."""
    if step.program is None:
        return None
    slices = np.array(slices_of(mesh))

    def crosses(one: Collective) -> bool:
        if one.groups is None or slices.max() == 0:
            return one.between_slices
        of_groups = slices[one.groups]
        return bool((of_groups != of_groups[:, :1]).any())

    sent = {True: 0.0, False: 0.0}
    for one in step.program.collectives:
        sent[crosses(one)] += one.times * one.sent
    return {
        "arithmetic": step.flops / mesh.size / chip.arithmetic,
        "memory": step.program.traffic / chip.bandwidth,
        "links": sent[False] / chip.links,
        "network": sent[True] / chip.network,
    }


def slices_of(mesh: Mesh) -> list[int]:
    """The number of the slice, or group of hosts, that each device of a mesh lies in."""
    return [getattr(device, "slice_index", None) or 0 for device in mesh.devices.flat]


def largest_batch(
    compile_at: Callable[[int], Compiled], size: int, first: Compiled, rows: int, memory: int
) -> int:
    """The largest batch, a multiple of `rows`, that fits; 0 where none does.

    Memory grows along a line with the batch, of which two compilations tell; a third confirms.
    """
    known = {size: first}
    other = rows if size > rows else 2 * rows
    known[other] = compile_at(other)
    for _ in range(TRIES):
        fitting = [batch for batch, found in known.items() if found.total <= memory]
        if not fitting and min(known) <= rows:
            return 0
        (low, a), *_, (high, b) = sorted((batch, found.total) for batch, found in known.items())
        slope = (b - a) / (high - low)
        guess = int((low + (memory - a) / slope) // rows * rows) if slope > 0 else high
        failed = [batch for batch, found in known.items() if found.total > memory]
        guess = min([max(guess, rows), *(batch - rows for batch in failed)])
        if guess <= max(fitting, default=0):
            break
        known[guess] = compile_at(guess)
    return max((batch for batch, found in known.items() if found.total <= memory), default=0)


def advice(planned: Planned, needed: int, largest: int | None, chip: Chip) -> list[str]:
    """What to change where a training does not fit, the cheapest first."""
    config, mesh = planned.config, dict(planned.mesh.shape)
    tips = [
        f"--set {name}=True: compute blocks again in the backward pass"
        for name, on in _switches(config)
        if not on
    ]
    if mesh["replica"] > 1:
        tips.append("--set mesh.replica=1 mesh.fsdp=-1: split the parameters over all devices")
    slices = config.batch_size // planned.ways
    if slices > config.optimizer.accumulate:
        tips.append(f"--set optimizer.accumulate={slices}: take a batch in {slices} parts")
    if largest:
        tips.append(f"--set batch_size={largest}: the largest batch that fits")
    more = 2 ** math.ceil(math.log2(max(needed / chip.memory, 1.01)))
    tips.append(f"a slice of {planned.mesh.size * more} devices, or one whose devices hold more")
    return tips


def _switches(config: Any, prefix: str = "") -> list[tuple[str, bool]]:
    """Fields named `rematerialise` of a config, with their values."""
    found: list[tuple[str, bool]] = []
    for name, value in config.items():
        if name == "rematerialise":
            found.append((f"{prefix}{name}", bool(value)))
        elif hasattr(value, "items"):
            found += _switches(value, f"{prefix}{name}.")
    return found


def mesh_shapes(devices: int, slices: int, rows: int, parts: int) -> Sequence[dict[str, int]]:
    """Meshes of so many devices on which a batch of `rows`, of `parts` chunks or frames, divides.

    Slices repeat the model; inside them nothing does, because fsdp needs less memory for the same.
    """
    inside = devices // slices
    divisors = [n for n in range(1, inside + 1) if inside % n == 0]
    return [
        {"replica": slices, "fsdp": fsdp, "context": context, "tensor": tensor}
        for fsdp in divisors
        for context in divisors
        for tensor in divisors
        if fsdp * context * tensor == inside
        and rows % (slices * fsdp) == 0
        and parts % context == 0
        and tensor <= 8
    ]
