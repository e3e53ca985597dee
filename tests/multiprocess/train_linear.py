"""The training command, with a linear regression of the kind that its first argument names."""

import signal
import sys

from linear_regression import LinearTask

from xactor_jax import main


def stopped_early():
    """Asked to stop before there is anything to train."""
    signal.raise_signal(signal.SIGTERM)
    return LinearTask()


KINDS = {
    "plain": LinearTask,
    "stopped_early": stopped_early,
}

if __name__ == "__main__":
    make = KINDS[sys.argv.pop(1)]
    main.make_task = lambda config: make()
    main.run(main.main)
