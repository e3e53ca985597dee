"""The training command, with a linear regression for its task."""

from linear_regression import LinearTask

from xactor_jax import main

if __name__ == "__main__":
    main.make_task = lambda config: LinearTask()
    main.run(main.main)
