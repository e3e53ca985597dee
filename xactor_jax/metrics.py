"""What a training says while it runs: metrics.jsonl, TensorBoard scalars and a progress bar."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from absl import logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter


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


class NotFinite(Exception):
    """A step whose loss or gradient is not finite, one more than may be skipped."""

    def __init__(self, step: int, metrics: Mapping[str, float], skipped: int):
        found = ", ".join(f"{name} is {value}" for name, value in metrics.items())
        before = f", after {skipped} such steps that were skipped" if skipped else ""
        super().__init__(f"step {step}: {found}{before}")


@dataclass
class Totals:
    """What is counted over all runs of a training; a checkpoint holds it.

    began: when the first run began, in seconds since 1970. productive: seconds of steps that count,
    without their waits for data. skipped: steps left out because they were not finite.
    """

    began: float
    productive: float = 0.0
    skipped: int = 0


class Recorder:
    """Follows the steps of a training one step late, so that the device never waits for the host.

    `submit` after each step takes its metrics, still on the device, and reads those of the step
    before. Every `log_every` steps the means since the last line are written, with rates that leave
    out evaluation and saving, and with

        step_seconds             a step, its wait for data included
        data_wait_seconds        of which the device may have waited for data
        checkpoint_wait_seconds  that training stood still to save, since the last line
        goodput                  seconds of steps that count / seconds since the first run began:
                                 start-up, evaluation, saving, waits, time between runs and steps
                                 that a run lost all lower it
        flops_utilisation        `seconds_at_peak` / step_seconds
        skipped_steps            in all, when there are any

    totals: of the checkpoint to go on from; skip: how many steps that are not finite to put up
    with, in all; clock: seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        steps: int,
        log_every: int,
        batch_size: int,
        *,
        totals: Mapping[str, Any] | None = None,
        skip: int = 0,
        clock: Callable[[], float] = time.time,
    ):
        self._writer = MetricsWriter(folder, step)
        self._bar = progress_bar("training", steps, "steps/s", completed=step)
        self._log_every = log_every
        self._batch_size = batch_size
        self._skip = skip
        self._clock = clock
        self._totals = Totals(**totals) if totals else Totals(began=clock())
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._step = step
        self._unwritten: list[dict[str, float]] = []
        self._last_tick: float | None = None
        self._seconds = 0.0
        self._timed_steps = 0
        self._data_wait = self._checkpoint_wait = 0.0
        self.seconds_at_peak: float | None = None
        """Of a step, to report `flops_utilisation`."""

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        self._writer.close()

    def totals(self) -> dict[str, Any]:
        """JSON values from which a later run goes on counting."""
        return asdict(self._totals)

    def submit(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Take the metrics of update number `step`; settle and perhaps write those before it."""
        self.settle()
        if self._step % self._log_every == 0:
            self.write()
        self._pending = (step, metrics)

    def settle(self) -> None:
        """Wait for the last submitted step. Raises NotFinite when its loss or gradient is not."""
        if self._pending is None:
            return
        (self._step, on_device), self._pending = self._pending, None
        metrics = {name: float(value) for name, value in jax.device_get(on_device).items()}
        if math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"]):
            self._unwritten.append(metrics)
        else:
            self._count_skipped(metrics)
        self._tick()
        self._bar.update(
            self._bar.task_ids[0],
            completed=self._step,
            loss=f"loss {metrics['loss']:.4g}",
            rate=f"{self._timed_steps / self._seconds:.3g}" if self._seconds else "",
        )

    def _count_skipped(self, metrics: Mapping[str, float]) -> None:
        found = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if self._totals.skipped >= self._skip:
            raise NotFinite(self._step, found, self._totals.skipped)
        self._totals.skipped += 1
        shown = ", ".join(f"{name} is {value}" for name, value in found.items())
        logging.warning("step %d is skipped: %s", self._step, shown)

    def _tick(self) -> None:
        """Count the time since the step before; the first step, which compiles, is not timed."""
        now = self._clock()
        if self._last_tick is not None:
            self._seconds += now - self._last_tick
            self._totals.productive += now - self._last_tick
            self._timed_steps += 1
        self._last_tick = now

    def write(self, evaluation: Mapping[str, float] | None = None) -> None:
        """Write the line of the last settled step, once, with `evaluate/...` values if given."""
        if not self._unwritten and not evaluation:
            return
        scalars = {}
        if self._unwritten:
            last = self._unwritten[-1]
            scalars = {
                name: sum(metrics[name] for metrics in self._unwritten) / len(self._unwritten)
                for name in ("loss", *last)
            }
            scalars["learning_rate"] = last["learning_rate"]
        scalars |= self._times()
        if self._totals.skipped:
            scalars["skipped_steps"] = self._totals.skipped
        scalars |= {f"evaluate/{name}": value for name, value in (evaluation or {}).items()}
        self._writer.write(self._step, scalars)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        logging.info("step %d: %s", self._step, shown)
        self._unwritten = []

    def _times(self) -> dict[str, float]:
        """The rates, times and shares since the last line; begins to count anew."""
        scalars = {}
        if self._seconds:
            rate, seconds = self._timed_steps / self._seconds, self._seconds / self._timed_steps
            scalars = {
                "steps_per_second": rate,
                "samples_per_second": rate * self._batch_size,
                "step_seconds": seconds,
                "data_wait_seconds": self._data_wait / self._timed_steps,
                "checkpoint_wait_seconds": self._checkpoint_wait,
            }
            if self.seconds_at_peak:
                scalars["flops_utilisation"] = self.seconds_at_peak / seconds
        elapsed = self._clock() - self._totals.began
        if elapsed > 0:
            scalars["goodput"] = self._totals.productive / elapsed
        self._data_wait = self._checkpoint_wait = self._seconds = 0.0
        self._timed_steps = 0
        return scalars

    @contextlib.contextmanager
    def waiting_for_data(self) -> Generator[None]:
        """Around the wait for the next batch."""
        before = self._clock()
        yield
        if self._last_tick is not None:
            waited = self._clock() - before
            self._data_wait += waited
            self._totals.productive -= waited

    @contextlib.contextmanager
    def paused(self, to_save: bool = False) -> Generator[None]:
        """Around work that is not training: its time is not counted and it may show its own bar."""
        self._bar.stop()
        before = self._clock()
        try:
            yield
        finally:
            now = self._clock()
            self._checkpoint_wait += now - before if to_save else 0.0
            self._last_tick = None if self._last_tick is None else now
            if not self._bar.finished:
                self._bar.start()
