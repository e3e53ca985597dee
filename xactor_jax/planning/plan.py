"""The plan of one training on one mesh, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from xactor_jax.planning.chips import Chip
from xactor_jax.planning.estimate import (
    Planned,
    advice,
    collectives,
    largest_batch,
    roofline,
)
from xactor_jax.sharding import make_mesh
from xactor_jax.tasks import ShapedObjective


def plan_of(
    objective: ShapedObjective,
    config: Any,
    devices: Sequence[jax.Device],
    chip: Chip,
    *,
    largest: bool = False,
) -> dict[str, Any]:
    """What a config's training needs on these devices.

    parameters: numbers of all networks, and `learnt`, those that this training changes.
    bytes_per_chip: of one device at once, in a step or while evaluation samples; `bytes_by_kind`
      and `sampler_bytes_by_kind`, empty where evaluation only takes losses, say of what.
      chip_memory: what it has; fits: whether that is enough, and `advice` what to change where it
      is not.
    flops_per_step: model FLOPs by formula.
    collectives: {kind: {count, runs, bytes sent by a device in a step}}; None where the step does
      not fit and there is no program.
    roofline_seconds: the least time of a step, that of the busiest of `roofline`.
    largest_batch: examples; None unless searched.
    """
    mesh = make_mesh(config.mesh, devices)
    planned, size = Planned(objective, config, mesh), config.batch_size
    step = planned.compile_step(size)
    sampler = planned.compile_sampler(size) if objective.samples else None
    needed = max(step.total, sampler.total if sampler else 0)
    most = None
    if largest:
        compile_at = planned.compile_step
        most = largest_batch(compile_at, size, step, planned.rows, chip.memory)
    fits, busy = needed <= chip.memory, roofline(step, mesh, chip)
    return {
        "config": config.task,
        "device": chip.name,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "batch_size": size,
        "parameters": planned.parameters,
        "learnt": planned.learnt,
        "bytes_per_chip": needed,
        "bytes_by_kind": step.kinds,
        "sampler_bytes_by_kind": sampler.kinds if sampler else {},
        "chip_memory": chip.memory,
        "fits": fits,
        "advice": [] if fits else advice(planned, needed, most, chip),
        "flops_per_step": planned.model_flops(size),
        "collectives": collectives(step.program),
        "roofline": busy,
        "roofline_seconds": busy and max(busy.values()),
        "largest_batch": most,
    }
