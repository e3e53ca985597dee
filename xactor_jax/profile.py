"""A trace of some steps of a training, on request."""

from __future__ import annotations

from pathlib import Path

import jax

# The first steps compile and fill the queues.
STEPS_BEFORE = 10


class Profile:
    """Traces `count` steps of process 0 into `folder`, from the eleventh of this run on.

    For TensorBoard's profile plugin, `xprof --logdir=FOLDER`, or Perfetto. Use it as a context
    manager: what is under way when the training ends is written.
    """

    def __init__(self, folder: Path, start: int, count: int):
        self._folder, self._first, self._count = folder, start + STEPS_BEFORE, count
        self._running = False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False

    def before(self, step: int) -> None:
        """Start or end the trace, if step number `step` is the first one of it or after it."""
        if self._running and step >= self._first + self._count:
            self.__exit__()
        elif self._count and step == self._first and jax.process_index() == 0:
            jax.profiler.start_trace(self._folder)
            self._running = True
