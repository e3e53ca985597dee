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
from ml_collections import config_flags

from xactor_jax.command import run, start_up
from xactor_jax.errors import InputError
from xactor_jax.preemption import watch_maintenance
from xactor_jax.tasks import make_task
from xactor_jax.train import train

CONFIG = config_flags.DEFINE_config_file("config", help_string="Experiment.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of this training; made when missing.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes before anything.")
MAINTENANCE = flags.DEFINE_bool(
    "maintenance_events", False, "Save and stop before Google Cloud stops this machine."
)
STOPPED = flags.DEFINE_integer(
    "stopped_exit_code", 0, "When asked to stop before the last step; a launcher may want 75."
)


def parse(argv: list[str]) -> list[str]:
    """Read the flags. Raises InputError for whatever is wrong with them or the config file."""
    try:
        rest = flags.FLAGS(argv)
        for name in ("config", "workdir"):
            if not flags.FLAGS[name].present:
                raise InputError(f"--{name} is missing (see --help)")
        CONFIG.value.keys()  # A file that is missing shows only when its config is asked for.
    except OSError as error:
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        raise InputError(f"{path}: cannot read this config file") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        # The last line says what is wrong, also where the config file raised a traceback.
        reason = error.args[0].args[0] if isinstance(error.args[0], Exception) else error.args[0]
        raise InputError(f"{str(reason).strip().splitlines()[-1]} (see --help)") from error
    return rest


def command(argv: list[str]) -> None:
    """Train what the flags say."""
    if DISTRIBUTED.value:
        jax.distributed.initialize()
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
