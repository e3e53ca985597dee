"""Plan: `python -m xactor_jax.plan --config=configs/video.py --topology=v5e:4x4`.

Compiles the training step of a config, and what its evaluation samples, for devices that need not
be at hand, and says what they will need: memory, arithmetic, exchanges between devices, time and,
with --largest_batch, which batch is the largest. TPU slices need libtpu: pip install
'xactor_jax[plan]'.
"""

from __future__ import annotations

import ast
import json
import runpy
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from xactor_jax.command import Parser, run
from xactor_jax.errors import InputError


def flags(arguments: list[str]) -> Namespace:
    """Read and check the command's flags. Raises InputError."""
    parser = Parser("Say what a training will need, without the devices it will need.")
    parser.add_argument("--config", required=True, help="such as configs/video.py or ....py:tiny")
    parser.add_argument(
        "--topology",
        default="local",
        help="a TPU slice such as v5e:4x4 (v4, v5e, v5p, v6e, tpu7x), local for the devices of "
        "this machine, or cpu:8 for so many simulated ones",
    )
    parser.add_argument("--slices", type=int, default=1, help="so many equal TPU slices")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="change fields of the config, such as mesh.fsdp=8 batch_size=64",
    )
    parser.add_argument(
        "--renderer",
        help="config of the autoencoder that motion and video start from, where config.renderer "
        "names no weights; by default autoencoder.py beside --config, of the same size",
    )
    parser.add_argument("--sweep", action="store_true", help="try mesh shapes and name the best")
    parser.add_argument(
        "--largest_batch", action="store_true", help="search it, in one to four more compilations"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    chosen = parser.parse_args(arguments)
    if chosen.slices < 1:
        parser.error(f"--slices={chosen.slices}: at least 1")
    return chosen


def read_config(spec: str, changes: list[str]) -> Any:
    """A config such as "configs/video.py:tiny", some of its fields changed.

    Raises InputError for a file that cannot be read, a size, a field or a value it does not have.
    """
    path, _, size = spec.partition(":")
    try:
        config = runpy.run_path(path)["get_config"](*[size] if size else [])
    except OSError as error:
        raise InputError(f"{path}: cannot read this config file") from error
    except (ImportError, KeyError, SyntaxError, ValueError) as error:
        raise InputError(f"{spec}: {str(error).strip().splitlines()[-1]}") from error
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: use FIELD=VALUE")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        try:
            config.lock().update_from_flattened_dict({name.removeprefix("config."): value})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).strip("'\"").split())
            raise InputError(f"--set {change}: {reason}") from error
    return config


def renderer_config(chosen: Namespace, config: Any) -> Any:
    """Sizes of the renderer that a config starts from; None where its weights say them."""
    from xactor_jax.config import build
    from xactor_jax.models.renderer import RendererConfig

    if config.task == "autoencoder" or config.renderer:
        return None
    path, _, size = chosen.config.partition(":")
    spec = chosen.renderer
    if spec is None:
        spec = f"{Path(path).with_name('autoencoder.py')}{':' if size else ''}{size}"
    try:
        return build(RendererConfig, read_config(spec, []).renderer.to_dict())
    except InputError as error:
        raise InputError(f"{error}; say the renderer's sizes by --renderer=CONFIG") from error


def start(topology: str) -> None:
    """Choose the platform, before JAX has found one."""
    name, _, count = topology.partition(":")
    if name == "local":
        return
    jax.config.update("jax_platforms", "cpu")
    if name == "cpu":
        if not count.isdecimal() or not int(count):
            raise InputError(f"--topology={topology}: use cpu:COUNT, such as cpu:8")
        if jax.config.values["jax_num_cpu_devices"] != int(count):
            jax.config.update("jax_num_cpu_devices", int(count))


def planned_by(arguments: list[str]) -> Iterator[dict[str, Any]]:
    """The plans of the command with these flags."""
    chosen = flags(arguments)
    start(chosen.topology)
    return planned(chosen)


def planned(chosen: Namespace) -> Iterator[dict[str, Any]]:
    """The plan of each mesh to be tried, one after another. Raises InputError for bad flags.

    Of a mesh of a sweep that this training cannot have: {"mesh": its sizes, "impossible": why}.
    """
    from xactor_jax.planning import chips
    from xactor_jax.planning.estimate import mesh_shapes
    from xactor_jax.planning.plan import plan_of
    from xactor_jax.tasks import make_objective
    from xactor_jax.train import check

    config = read_config(chosen.config, chosen.set)
    check(config)
    if chosen.topology.partition(":")[0] in ("local", "cpu"):
        devices, chip = chips.local()
    else:
        devices, chip = chips.topology(chosen.topology, chosen.slices)
    objective = make_objective(config, renderer_config(chosen, config))
    meshes = [config.mesh.to_dict()]
    if chosen.sweep:
        rows = config.batch_size // config.optimizer.accumulate
        meshes = mesh_shapes(len(devices), chosen.slices, rows, objective.parts)
    for mesh in meshes:
        config.mesh.update(mesh)
        try:
            plan = plan_of(objective, config, devices, chip, largest=chosen.largest_batch)
        except InputError as error:
            if not chosen.sweep:
                raise
            plan = {"mesh": mesh, "impossible": str(error)}
        yield plan


def main() -> None:
    """Plan what the flags say."""
    chosen = flags(sys.argv[1:])
    start(chosen.topology)
    from xactor_jax.planning.report import best, show, show_sweep

    plans = []
    for plan in planned(chosen):
        plans.append(plan)
        if not chosen.sweep:
            show(plan)
    if chosen.sweep:
        result = {**best(plans), "sweep": plans}
        show_sweep(plans)
    else:
        result = plans[0]
    if chosen.output:
        try:
            chosen.output.write_text(json.dumps(result, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"{chosen.output}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    run(main)
