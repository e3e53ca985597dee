"""Train: `python -m xactor_jax.main --config=configs/motion.py:tiny --workdir=DIR`.

The same command continues a stopped training. `--config.steps=1000` changes a field. On several
machines add `--distributed`: jax.distributed finds the others on TPU pods, Slurm, GKE and Open MPI.
Compiled programs are kept in JAX_COMPILATION_CACHE_DIR, ~/.cache/xactor_jax by default.

SIGTERM, Ctrl-C and, with `--maintenance_events`, notices of Google Cloud save and stop.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
from absl import app, flags

from xactor_jax.command import join_others, run, start_up
from xactor_jax.flags import CONFIG, DISTRIBUTED, MAINTENANCE, STOPPED, WORKDIR, parse
from xactor_jax.preemption import watch_maintenance
from xactor_jax.tasks import make_task
from xactor_jax.train import train

flags.adopt_module_key_flags(sys.modules["xactor_jax.flags"])  # for --help


def command(argv: list[str]) -> None:
    """Train what the flags say."""
    if DISTRIBUTED.value:
        join_others()
    start_up()
    if MAINTENANCE.value:
        watch_maintenance()
    config, workdir = CONFIG.value, Path(WORKDIR.value)
    step = train(config, make_task(config), workdir)
    if jax.process_index() == 0:
        stopped = "" if step == config.steps else f" of {config.steps}; the same command continues"
        print(f"step {step}{stopped}: {workdir / 'model.safetensors'}", flush=True)
    if step < config.steps:
        sys.exit(STOPPED.value)


def main() -> None:
    app.run(command, flags_parser=parse)


if __name__ == "__main__":
    run(main)
