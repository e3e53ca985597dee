"""Linear and convolution layers with the project's initial weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

# Uniform draws compile far faster than truncated normals, of which an initialisation has hundreds.
initial_kernel = nnx.initializers.variance_scaling(1.0, "fan_in", "uniform")

Linear = functools.partial(nnx.Linear, kernel_init=initial_kernel)
Conv = functools.partial(nnx.Conv, kernel_init=initial_kernel)


class Offset(nnx.Module):
    """Adds what it has learnt."""

    def __init__(self, width: int):
        self.offset = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x + self.offset[...].astype(x.dtype)


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


def in_compute_type(weights: Any, dtype: Any) -> Any:
    """Weights with the kernels of linear layers in the type that these compute in.

    What they compute stays the same; without it every pass reads full precision and rounds it.
    """
    return _kernels(lambda kernel: jnp.asarray(kernel, dtype), weights)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transposed:
    """The kernel of a linear layer, kept output first."""

    kernel: Float[Array, "out in"]


def output_first(weights: Any) -> Any:
    """Weights for passes of few tokens on a CPU; `input_first` makes them a network's again.

    XLA's CPU multiplies some ten to seventy rows with a kernel that lies output first up to twice
    as fast as with one that lies as flax keeps it, and other numbers of rows as fast.
    """
    return _kernels(lambda kernel: Transposed(jnp.asarray(kernel.T)), weights)


def input_first(weights: Any) -> Any:
    """Weights as a network has them. In a compiled function the transpose costs nothing."""

    def is_transposed(x: Any) -> bool:
        return isinstance(x, Transposed)

    return jax.tree.map(
        lambda x: x.kernel.T if is_transposed(x) else x, weights, is_leaf=is_transposed
    )


def _kernels(change: Callable[[Array], Any], weights: Any) -> Any:
    """Weights with the kernels of linear layers changed."""

    def of(path: tuple[Any, ...], weight: Any) -> Any:
        linear = path[-1] == jax.tree_util.DictKey("kernel") and weight.ndim == 2
        return change(weight) if linear else weight

    return jax.tree_util.tree_map_with_path(of, weights)
