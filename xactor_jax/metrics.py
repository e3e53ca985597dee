"""What a training says while it runs: metrics.jsonl, TensorBoard scalars and a progress bar."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
from absl import logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from xactor_jax.errors import InputError


class MetricsWriter:
    """Appends scalars of a step to `folder`/metrics.jsonl and `folder`/tensorboard.

    Lines after `step`, the step a training starts or resumes from, and a line that a kill cut short
    are dropped first, so every step has one line. Only process 0 writes.
    """

    def __init__(self, folder: Path, step: int):
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        _drop_lines_after(path, step)
        self._file = path.open("a")
        self._tensorboard = SummaryWriter(
            str(folder / "tensorboard"), purge_step=step + 1 if step else None
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append one JSON object {"step": step, **scalars}; a value that is not finite is null."""
        if not self._writes:
            return
        finite = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in finite.items():
            if value is not None:
                self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish both files."""
        if self._writes:
            self._file.close()
            self._tensorboard.close()


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text("".join(kept))
    os.replace(unfinished, path)


def progress_bar(description: str, total: int, unit: str, completed: int = 0) -> Progress:
    """A started bar on stderr with rate, loss and time left; it shows in a terminal only.

    It has one task, whose fields `rate` (units a second) and `loss` are text.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit} {{task.fields[rate]}}"),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        transient=True,
        console=Console(stderr=True),
        disable=not sys.stderr.isatty() or jax.process_index() != 0,
    )
    bar.add_task(description, total=total, completed=completed, rate="", loss="")
    bar.start()
    return bar


class Recorder:
    """Follows the steps of a training one step late, so that the device never waits for the host.

    `submit` after each step takes its metrics, still on the device, and reads those of the step
    before. Every `log_every` steps the means since the last line are written, with rates that leave
    out evaluation and saving.
    """

    def __init__(self, folder: Path, step: int, steps: int, log_every: int, batch_size: int):
        self._writer = MetricsWriter(folder, step)
        self._bar = progress_bar("training", steps, "steps/s", completed=step)
        self._log_every = log_every
        self._batch_size = batch_size
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._step = step
        self._unwritten: list[dict[str, float]] = []
        self._clock: float | None = None
        self._seconds = 0.0
        self._timed_steps = 0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        self._writer.close()

    def submit(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Take the metrics of update number `step`; settle and perhaps write those before it."""
        self.settle()
        if self._step % self._log_every == 0:
            self.write()
        self._pending = (step, metrics)

    def settle(self) -> None:
        """Wait for the last submitted step. Raises InputError when its loss is not finite."""
        if self._pending is None:
            return
        (self._step, on_device), self._pending = self._pending, None
        metrics = {name: float(value) for name, value in jax.device_get(on_device).items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(metrics[name]):
                raise InputError(
                    f"{name} is {metrics[name]} at step {self._step}; the last checkpoint is from "
                    "before it: lower config.optimizer.learning_rate or look at the data, run again"
                )
        self._unwritten.append(metrics)
        self._tick()
        self._bar.update(
            self._bar.task_ids[0],
            completed=self._step,
            loss=f"loss {metrics['loss']:.4g}",
            rate=f"{self._timed_steps / self._seconds:.3g}" if self._seconds else "",
        )

    def _tick(self) -> None:
        """Count the time since the step before; the first step, which compiles, is not timed."""
        now = time.perf_counter()
        if self._clock is not None:
            self._seconds += now - self._clock
            self._timed_steps += 1
        self._clock = now

    def write(self, evaluation: Mapping[str, float] | None = None) -> None:
        """Write the line of the last settled step, once, with `evaluate/...` values if given."""
        if not self._unwritten:
            return
        names = self._unwritten[-1]
        scalars = {
            name: sum(metrics[name] for metrics in self._unwritten) / len(self._unwritten)
            for name in ("loss", *names)
        }
        scalars["learning_rate"] = names["learning_rate"]
        if self._seconds:
            rate = self._timed_steps / self._seconds
            scalars |= {"steps_per_second": rate, "samples_per_second": rate * self._batch_size}
        scalars |= {f"evaluate/{name}": value for name, value in (evaluation or {}).items()}
        self._writer.write(self._step, scalars)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        logging.info("step %d: %s", self._step, shown)
        self._unwritten, self._seconds, self._timed_steps = [], 0.0, 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around work that is not training: its time is not counted and it may show its own bar."""
        self._bar.stop()
        try:
            yield
        finally:
            self._clock = None if self._clock is None else time.perf_counter()
            if not self._bar.finished:
                self._bar.start()
