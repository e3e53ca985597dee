"""What every config needs on the slice that its file names, as a table in Markdown.

    python -m xactor_jax.planning.scale --output=docs/scale.md

Rows of a table that is there already stay until their config is planned anew, or is no more.
A config file says in `SLICES` which devices each of its sizes is meant for: {size: topology}.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import jax

from xactor_jax.command import Parser, run
from xactor_jax.errors import InputError
from xactor_jax.plan import planned_by
from xactor_jax.planning.report import limit_of, mesh_of, size_of
from xactor_jax.progress import progress

DOES_NOT_FIT = "**does not fit**"
HEADER = """# What trainings need

Each config on the slice that its file names: compiled for it, without owning it, by

```sh
pip install -e ".[plan]"
python -m xactor_jax.planning.scale --output=docs/scale.md
```

Memory is that of one device, in a training step or while a batch is sampled as evaluation does it,
whichever is more; evaluation itself takes 16 examples of an autoencoder and 8 windows of a video.
Model FLOPs are those of a step by formula, without what is computed again to save memory. No step
is shorter than its roofline: what its arithmetic, memory traffic or exchanges take at the device's
peak rates. The last column is the version of JAX whose compiler said so: some share memory out
better than others. It is not asked for the fastest windows of convolutions, whose search takes
long; with them programs are larger, in the full motion training by 2 % of the memory. Nobody has
measured these on the devices yet.

| config | devices | mesh | batch | parameters | memory | of | FLOPs | roofline | limited by | JAX |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def documented(folder: Path) -> dict[str, str]:
    """Configs of a folder, such as "configs/video.py:tiny", and the topology of each."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        slices = runpy.run_path(str(path)).get("SLICES", {})
        found |= {f"{path}:{size}": topology for size, topology in slices.items()}
    if not found:
        raise InputError(f"{folder}: no config here names its slice in SLICES")
    return found


def row(config: str, plan: dict[str, Any]) -> str:
    """One line of the table."""
    # The rates of a CPU are measured on the machine that makes the table, and say little of others.
    seconds = None if plan["device"] == "cpu" else plan["roofline_seconds"]
    cells = (
        config,
        f"{plan['devices']} x {plan['device']}",
        mesh_of(plan),
        plan["batch_size"],
        f"{plan['parameters'] / 1e6:.1f} M",
        size_of(plan["bytes_per_chip"]),
        size_of(plan["chip_memory"]) if plan["fits"] else DOES_NOT_FIT,
        f"{plan['flops_per_step']:.2e}",
        "" if seconds is None else f"{1e3 * seconds:.3g} ms",
        "" if seconds is None else limit_of(plan),
        jax.__version__,
    )
    return "| " + " | ".join(map(str, cells)) + " |\n"


def rows_of(file: Path) -> dict[str, str]:
    """Lines of a table that was written before, by their configs."""
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if ".py:" in line}


def main() -> None:
    """Write the table that the flags ask for."""
    parser = Parser("Write a table of what every config needs on its documented slice.")
    parser.add_argument("--configs", type=Path, default=Path("configs"), help="folder of configs")
    parser.add_argument("--only", default="", help="plan only those whose name has this")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    chosen = parser.parse_args(sys.argv[1:])
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    slices = documented(chosen.configs)
    rows, failed = rows_of(chosen.output), 0
    wanted = [config for config in slices if chosen.only in config]
    with progress("planning", len(wanted), "configs") as advance:
        for config in wanted:
            arguments = [f"--config={config}", f"--topology={slices[config]}"]
            if Path(config.partition(":")[0]).name == "drift.py":
                arguments.append(f"--renderer={chosen.configs / 'autoencoder.py'}:tiny")
            try:
                rows[config] = row(config, next(planned_by(arguments)))
            except InputError as error:
                failed += 1
                print(f"error: {config}: {error}", file=sys.stderr)
            write(chosen.output, [rows[name] for name in slices if name in rows])
            advance(1)
    problems = [f"{failed} of {len(wanted)} configs could not be planned"] if failed else []
    if large := [name for name in slices if DOES_NOT_FIT in rows.get(name, "")]:
        problems.append(f"too large for the slices that their files name: {', '.join(large)}")
    if problems:
        raise InputError("; ".join(problems))


def write(output: Path, rows: list[str]) -> None:
    """The table so far."""
    try:
        output.write_text(HEADER + "".join(rows))
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    run(main)
