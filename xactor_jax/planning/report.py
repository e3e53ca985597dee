"""Plans as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from xactor_jax.errors import InputError


def size_of(count: float) -> str:
    """Bytes, in units of 2^30 or 2^20."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


def show(plan: dict[str, Any], console: Console | None = None) -> None:
    """Print one plan."""
    console = console or Console()
    console.print(
        f"{plan['config']} on {plan['devices']} x {plan['device']}, mesh {mesh_of(plan)}, "
        f"batch {plan['batch_size']}"
    )
    console.print(f"parameters: {plan['parameters']:,}, of which {plan['learnt']:,} are learnt")
    console.print(_memory(plan))
    console.print(f"model FLOPs a step: {plan['flops_per_step']:.3e}")
    if plan["collectives"] is not None:
        console.print(_exchanges(plan))
        busy = plan["roofline"]
        times = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in busy.items())
        console.print(
            f"a step takes at least {1e3 * plan['roofline_seconds']:.2f} ms "
            f"({limit_of(plan)}): {times}"
        )
    if plan["largest_batch"] is None:
        console.print(
            "largest batch: --largest_batch searches it, in one to four more compilations"
        )
    else:
        console.print(f"largest batch that fits: {plan['largest_batch']}")
    short = plan["bytes_per_chip"] - plan["chip_memory"]
    if plan["fits"]:
        console.print(f"fits: {size_of(-short)} of each device are left")
        return
    console.print(f"does not fit: {size_of(short)} of each device are missing; you could")
    for tip in plan["advice"]:
        console.print(f"  {tip}", highlight=False)


def show_sweep(plans: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """Print plans of several meshes, one a row, why some are impossible, and name the best.

    Raises InputError where all are.
    """
    console = console or Console()
    table = Table("mesh", "memory", "fits", "step, at least", "limited by")
    for plan in plans:
        if "impossible" in plan:
            table.add_row(mesh_of(plan), "", "impossible", "", "")
            continue
        seconds = plan["roofline_seconds"]
        table.add_row(
            mesh_of(plan),
            size_of(plan["bytes_per_chip"]),
            "yes" if plan["fits"] else "no",
            "" if seconds is None else f"{1e3 * seconds:.2f} ms",
            "" if seconds is None else limit_of(plan),
        )
    console.print(table)
    for plan in plans:
        if "impossible" in plan:
            console.print(f"{mesh_of(plan)}: {plan['impossible']}", highlight=False)
    chosen = best(plans)
    if chosen["fits"]:
        console.print(f"best: {mesh_of(chosen)}")
        show(chosen, console)
    else:
        console.print(f"none fits; nearest: {mesh_of(chosen)}")
        show(chosen, console)


def best(plans: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fastest that fits, by its roofline; where none fits the one that needs least memory.

    Raises InputError where no mesh is possible.
    """
    if not plans:
        raise InputError("no mesh divides this batch; change batch_size")
    possible = [plan for plan in plans if "impossible" not in plan]
    if not possible:
        first = plans[0]
        raise InputError(f"no mesh is possible; {mesh_of(first)}: {first['impossible']}")
    fitting = [plan for plan in possible if plan["fits"]]
    if not fitting:
        return min(possible, key=lambda plan: plan["bytes_per_chip"])
    return min(fitting, key=lambda plan: (plan["roofline_seconds"], plan["bytes_per_chip"]))


def mesh_of(plan: dict[str, Any]) -> str:
    """Its axes that split anything."""
    sizes = [f"{axis}={size}" for axis, size in plan["mesh"].items() if size > 1]
    return " ".join(sizes) or "one device"


def limit_of(plan: dict[str, Any]) -> str:
    """The busiest resource."""
    return max(plan["roofline"], key=plan["roofline"].get)


def _memory(plan: dict[str, Any]) -> Table:
    columns = {"step": plan["bytes_by_kind"], "evaluation": plan["sampler_bytes_by_kind"]}
    columns = {name: kinds for name, kinds in columns.items() if kinds}
    table = Table("memory of a device", *columns, box=None, pad_edge=False)
    for kind in dict.fromkeys(kind for kinds in columns.values() for kind in kinds):
        table.add_row(kind, *(size_of(kinds.get(kind, 0)) for kinds in columns.values()))
    table.add_row("in all", *(size_of(sum(kinds.values())) for kinds in columns.values()))
    table.add_row("there is", *[size_of(plan["chip_memory"])] * len(columns))
    return table


def _exchanges(plan: dict[str, Any]) -> Table:
    table = Table("between devices", "count", "runs", "sent by each", box=None, pad_edge=False)
    for kind, total in plan["collectives"].items():
        table.add_row(kind, f"{total['count']}", f"{total['runs']}", size_of(total["bytes"]))
    return table
