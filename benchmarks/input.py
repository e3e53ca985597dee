"""Windows that the loader gives, against those that a training takes, and what finding one costs.

python -m benchmarks.input --folders=data/footage,data/actors

Without `--folders` the clips are textures made for the purpose, as heavy as film. The loader runs
alone, then the training step alone, in turns in one process, each on all cores; the motion task
reads latents, the others decode, crop and augment pictures. The index is a synthetic one, of up to
a million clips, read through the same pipeline without any record.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from configs import autoencoder, encoder, motion, video
from xactor_jax.command import Parser, run, start_up
from xactor_jax.data.examples import FaceExampleConfig, FaceExamples
from xactor_jax.data.pipeline import LocalBatches
from xactor_jax.data.shards import (
    SAMPLES_PER_FRAME,
    Clip,
    Header,
    encode_frame,
    write_index,
    write_shards,
)
from xactor_jax.errors import InputError
from xactor_jax.optim import make_optimizer
from xactor_jax.sharding import batch_sharding, make_mesh, place, tensor_shardings
from xactor_jax.tasks import make_task
from xactor_jax.train import Task, jit_step, make_step, new_state, random_keys

TASKS = {"autoencoder": autoencoder, "encoder": encoder, "motion": motion, "video": video}
RENDERER = "checkpoints/tiny/renderer.safetensors"
INDEX_SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)


def textures(source: str, clips: int, frames: int = 75, side: int = 192) -> Iterator[Clip]:
    """Clips whose JPEGs weigh about what those of filmed faces do: fine and coarse noise, moving.

    Those of actors come in pairs of one motion.
    """
    draw = np.random.default_rng(0)
    for n in range(clips):
        picture = np.full((side + frames, side + frames, 3), 128, np.float32)
        for blur, strength in ((1.5, 25), (6, 200), (24, 2000)):
            noise = draw.normal(0, strength, picture.shape).astype(np.float32)
            picture += cv2.GaussianBlur(noise, (0, 0), blur)
        picture = np.clip(picture, 0, 255).astype(np.uint8)
        box = draw.normal(0.5, 0.01, (frames, 3)).astype(np.float32)
        yield Clip(
            clip=f"{source}{n}",
            source=source,
            identity=f"{source}{n % 7}",
            motion=f"{source}{n // 2}" if source == "actor" else "",
            size=side,
            frames=[encode_frame(picture[t : t + side, t : t + side]) for t in range(frames)],
            head_box=box,
            audio=draw.normal(0, 2000, frames * SAMPLES_PER_FRAME).astype(np.int16),
        )


def write_textures(folder: Path, clips: int) -> tuple[str, ...]:
    """Folders of footage and of actors, `clips` each to train on and two held out."""
    for source in ("footage", "actor"):
        train, test = textures(source, clips), textures(source, 2)
        write_shards(folder / source, {"train": train, "test": test})
    return tuple(str(folder / source) for source in ("footage", "actor"))


def loading(task: Task, config: Any, seconds: float) -> dict[str, float]:
    """The loader alone: windows a second, and a second of one core's time."""
    batches = LocalBatches(
        task.source(),
        task.load,
        batch_size=config.batch_size,
        rows=range(config.batch_size),
        seed=0,
        threads=config.read_threads,
        workers=config.read_workers,
    )
    for _ in range(8):  # files are opened
        next(batches)
    count, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += config.batch_size
    found = rates(count, start, cpu)
    batches.close()
    return found


def rates(windows: int, start: float, cpu: float) -> dict[str, float]:
    """Windows since a moment: of the clock, and of the time that cores spent on this process."""
    return {
        "per_second": windows / (time.perf_counter() - start),
        "per_core_second": windows / (time.process_time() - cpu),
    }


def training(task: Task, config: Any) -> Callable[[float], dict[str, float]]:
    """A function that trains alone for some seconds: windows taken a second, and a core's second.

    It steps as training does, always on one batch that is on the device already.
    """
    mesh = make_mesh(config.mesh)
    init_key, step_key, *_ = random_keys(0, mesh)
    optimizer, schedule = make_optimizer(config.optimizer, config.steps)
    rows, draw = task.source(), np.random.default_rng(0)
    chosen = np.linspace(0, len(rows) - 1, config.batch_size).astype(int)
    examples = [task.load(rows[int(i)], draw) for i in chosen]
    batch = {name: np.stack([e[name] for e in examples]) for name in examples[0]}
    with jax.set_mesh(mesh):
        make = functools.partial(new_state, task, optimizer)
        shardings = tensor_shardings(jax.eval_shape(make, init_key), mesh)
        state = jax.jit(make, out_shardings=shardings)(init_key)
        batch, frozen = jax.device_put(batch, batch_sharding(mesh)), place(task.frozen, mesh)
        update = jit_step(make_step(task, optimizer, schedule, config), state, mesh)
        state, _ = jax.block_until_ready(update(state, frozen, batch, step_key))
    held = [state]

    def train(seconds: float) -> dict[str, float]:
        count, start, cpu = 0, time.perf_counter(), time.process_time()
        with jax.set_mesh(mesh):
            while time.perf_counter() - start < seconds:
                held[0], _ = jax.block_until_ready(update(held[0], frozen, batch, step_key))
                count += config.batch_size
        return rates(count, start, cpu)

    return train


def against_training(
    name: str, size: str, folders: Sequence[str], cache: str, seconds: float, turns: int
) -> dict[str, float]:
    """What one task's loader gives to what its step takes; medians over some turns of each."""
    config = TASKS[name].get_config(size)
    config.data.folders = tuple(folders)
    if "renderer" in config and isinstance(config.renderer, str):
        config.renderer = RENDERER
    if "cache" in config.data:
        config.data.cache = cache
    task = make_task(config)
    train = training(task, config)
    loaded, taken = [], []
    for _ in range(turns):
        loaded.append(loading(task, config, seconds))
        taken.append(train(seconds))
    found = {
        f"{name}_{rate}": float(np.median([row[rate] for row in rows]))
        for name, rows in (("loaded", loaded), ("taken", taken))
        for rate in rows[0]
    }
    for rate in ("per_second", "per_core_second"):
        found[f"loaded_to_taken_{rate}"] = found[f"loaded_{rate}"] / found[f"taken_{rate}"]
    return found


def indexed(clips: int, windows: int) -> dict[str, float]:
    """What an index of so many clips costs: to open, a clip; and to find, a window.

    Half are footage, and half actors in pairs. Nothing is read but the index.
    """
    draw = np.random.default_rng(0)
    headers = []
    for n, length in enumerate(draw.integers(50, 250, clips).tolist()):
        source, name = ("footage", f"f{n}") if n % 2 else ("actor", f"a{n // 4}")
        headers.append(Header(f"{source}{n}", 0, source, f"person{n % 997}", name, length))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dataset_info.json").touch()
        write_index(Path(folder), "train", headers)
        del headers
        start = time.process_time()
        examples = FaceExamples(FaceExampleConfig(folders=(folder,)))
        opened = time.process_time() - start
    batches = LocalBatches(
        examples, pick(examples), batch_size=16, rows=range(16), seed=0, threads=2
    )
    for _ in range(8):
        next(batches)
    start = time.process_time()
    for _ in range(windows // 16):
        next(batches)
    found = (time.process_time() - start) / (windows // 16 * 16)
    batches.close()
    return {"open_a_clip": opened / clips, "find_a_window": found}


def pick(examples: FaceExamples) -> Callable[[Any, np.random.Generator], dict[str, np.ndarray]]:
    """A `load` that decides what is shown, as that of the examples does, and reads nothing."""

    def load(element: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        other = examples.other_identity(int(element["segment"]), rng)
        shown = [element["segment"], element["start"], -1 if other is None else other]
        return {"shown": np.asarray(shown)}

    return load


def main() -> None:
    """Print the measures of every task, then those of the index, as JSON."""
    parser = Parser(__doc__.split("\n")[0])
    parser.add_argument("--tasks", default=",".join(TASKS), help="which, with commas between")
    parser.add_argument("--folders", help="of shards, with commas between; textures when left out")
    parser.add_argument("--size", default="tiny", help="of the networks")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3, help="of loading and training each")
    parser.add_argument("--most_clips", type=int, default=INDEX_SIZES[-1], help="in the index")
    parser.add_argument("--output", help="a JSON file to write as well")
    chosen = parser.parse_args(sys.argv[1:])
    names = chosen.tasks.split(",")
    if unknown := set(names) - set(TASKS):
        raise InputError(f"--tasks: {', '.join(sorted(unknown))} is none of {', '.join(TASKS)}")
    start_up()
    measured: dict[str, Any] = {}

    def report(name: str, values: dict[str, float]) -> None:
        measured[name] = values
        print(json.dumps({"measured": name, **values}), flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        if chosen.folders:
            folders = tuple(chosen.folders.split(","))
        else:
            folders = write_textures(Path(scratch), 60)
        for name in names:
            arguments = name, chosen.size, folders, f"{scratch}/cache", chosen.seconds, chosen.turns
            report(name, against_training(*arguments))
    sizes = [size for size in INDEX_SIZES if size <= chosen.most_clips]
    for size in sizes:
        report(f"index of {size}", indexed(size, 20_000))
    if len(sizes) > 1:
        first, last = (measured[f"index of {size}"] for size in (sizes[0], sizes[-1]))
        report("index", {f"{k}_last_to_first": last[k] / first[k] for k in first})
    if chosen.output:
        Path(chosen.output).write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
