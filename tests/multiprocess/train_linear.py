"""The training command, with a linear regression of the kind that its first argument names."""

import signal
import sys

import jax
import numpy as np
from linear_regression import TRUTH, LinearTask

from xactor_jax import main
from xactor_jax.errors import InputError


def stopped_early():
    """Asked to stop before there is anything to train."""
    signal.raise_signal(signal.SIGTERM)
    return LinearTask()


def measured_apart():
    """What the second process measures differs in the last bits."""
    task = LinearTask()
    task.frozen = {"truth": TRUTH * np.float32(1 + jax.process_index() * 2**-22)}
    return task


class WrongForOne(LinearTask):
    """The second process meets an error where it reads what it is to learn from.

    after: examples that it reads before; with some, the first waits for it in the middle of a step.
    """

    error: Exception
    after = 0

    def load(self, index, rng):
        if jax.process_index() == 1 and self.after == 0:
            raise self.error
        self.after -= 1
        return super().load(index, rng)


class UnreadableForOne(WrongForOne):
    error = InputError("clip 7: cannot be read")


class BrokenForOne(WrongForOne):
    error = ZeroDivisionError("a fault of the program")
    after = 40


KINDS = {
    "plain": LinearTask,
    "stopped_early": stopped_early,
    "measured_apart": measured_apart,
    "unreadable_for_one": UnreadableForOne,
    "broken_for_one": BrokenForOne,
}

if __name__ == "__main__":
    make = KINDS[sys.argv.pop(1)]
    main.make_task = lambda config: make()
    main.run(main.main)
