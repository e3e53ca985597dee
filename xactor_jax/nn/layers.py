"""Linear and convolution layers with the project's initial weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar, cast

import jax
from flax import nnx
from jaxtyping import PRNGKeyArray

# Uniform draws compile far faster than truncated normals, of which an initialisation has hundreds.
initial_kernel = nnx.initializers.variance_scaling(1.0, "fan_in", "uniform")

Linear = functools.partial(nnx.Linear, kernel_init=initial_kernel)
Conv = functools.partial(nnx.Conv, kernel_init=initial_kernel)


M = TypeVar("M", bound=nnx.Module)


def abstract(make: Callable[[nnx.Rngs], M]) -> M:
    """The module that `make` builds, with shapes in place of weights."""
    return nnx.eval_shape(lambda: make(initial_keys(jax.random.key(0))))


def initial_keys(key: PRNGKeyArray) -> nnx.Rngs:
    """A source of keys for initial weights, to be used where `nnx.Rngs` is asked for.

    It counts in Python. `nnx.Rngs` counts in an array, whose every update inside a trace walks the
    whole trace so far: seconds to minutes for networks of hundreds of layers.
    """
    return cast(nnx.Rngs, _Keys(key))


class _Keys:
    def __init__(self, key: PRNGKeyArray):
        self._key, self._count = key, 0

    def params(self) -> PRNGKeyArray:
        self._count += 1
        return jax.random.fold_in(self._key, self._count)

    __call__ = params
