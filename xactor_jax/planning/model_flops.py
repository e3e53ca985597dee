"""Floating-point operations by formula: those of matrix products and convolutions.

A product of (m, k) and (k, n) is 2 m k n. In training each operand that depends on a parameter adds
as many again: the gradient by one operand is a product with the other. What is computed again to
save memory does not count, so that the number is that of model FLOPs utilisation (Chowdhery et al.,
arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, Literal


def model_flops(loss: Callable[..., Any], params: Any, *others: Any) -> float:
    """Of the loss and its gradient by `params`; all arguments may be shapes."""
    traced = jax.make_jaxpr(loss)(params, *others)
    learns = [True] * len(jax.tree.leaves(params))
    learns += [False] * (len(traced.jaxpr.invars) - len(learns))
    return _count(traced.jaxpr, learns)[0]


def executed_flops(jaxpr: Jaxpr) -> float:
    """Of a function as it was traced, what it computes again included."""
    return _count(jaxpr, [False] * len(jaxpr.invars))[0]


def _count(jaxpr: Jaxpr, learns: Sequence[bool]) -> tuple[float, list[bool]]:
    """Operations, and which outputs depend on a parameter, given which inputs do."""
    depends = dict(zip(jaxpr.invars, learns, strict=True))
    total = 0.0

    def of(variable: Any) -> bool:
        return not isinstance(variable, Literal) and depends.get(variable, False)

    for equation in jaxpr.eqns:
        given = [of(variable) for variable in equation.invars]
        name, found = equation.primitive.name, [any(given)] * len(equation.outvars)
        if name == "stop_gradient":
            found = [False] * len(found)
        elif name == "dot_general":
            total += _product(equation) * (1 + sum(given))
        elif name == "conv_general_dilated":
            total += _convolution(equation) * (1 + sum(given))
        elif name == "pallas_call":  # attention: two products, and four in its gradient
            grid = [n for n in equation.params["grid_mapping"].grid if isinstance(n, int)]
            inside = _open(equation.params["jaxpr"])
            operations = _count(inside, [False] * len(inside.invars))[0]
            total += operations * math.prod(grid) * (3 if any(given) else 1)
        elif name == "shard_map":
            operations, found = _count(_open(equation.params["jaxpr"]), given)
            total += operations * equation.params["mesh"].size
        elif name == "scan":
            operations, found = _scan(equation.params, given)
            total += operations
        elif name == "cond":
            branches = [_count(_open(b), given[1:]) for b in equation.params["branches"]]
            total += max(operations for operations, _ in branches)
            found = [any(outputs) for outputs in zip(*(f for _, f in branches), strict=True)]
        elif name == "while":
            total += _while(equation.params, given)
        else:
            for inner in _inner(equation.params):
                if len(inner.invars) == len(given):
                    operations, found = _count(inner, given)
                    total += operations
                    break
        depends |= {
            variable: learned and _differentiable(variable)
            for variable, learned in zip(equation.outvars, found, strict=True)
        }
    return total, [of(variable) for variable in jaxpr.outvars]


def _differentiable(variable: Any) -> bool:
    return jax.dtypes.issubdtype(variable.aval.dtype, np.inexact)


def _open(jaxpr: Any) -> Jaxpr:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _inner(params: dict[str, Any]) -> list[Jaxpr]:
    """The function of a call: jit, checkpoint, custom derivatives."""
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    return [_open(params[name]) for name in names if name in params]


def _scan(params: dict[str, Any], given: list[bool]) -> tuple[float, list[bool]]:
    inner, constants, carried = _open(params["jaxpr"]), params["num_consts"], params["num_carry"]
    while True:  # what is carried may come to depend on a parameter after a pass
        operations, found = _count(inner, given)
        carry = [a or b for a, b in zip(given[constants:], found[:carried], strict=False)][:carried]
        if carry == given[constants : constants + carried]:
            return operations * params["length"], found
        given = [*given[:constants], *carry, *given[constants + carried :]]


def _while(params: dict[str, Any], given: list[bool]) -> float:
    """One pass: how many there are is known only when it runs. No network here has one."""
    return _count(_open(params["body_jaxpr"]), given[params["cond_nconsts"] :])[0]


def _product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(equation: Any) -> float:
    numbers, kernel = equation.params["dimension_numbers"], equation.invars[1].aval.shape
    inputs = math.prod(kernel) // kernel[numbers.rhs_spec[0]]  # of one output number
    zeros = math.prod(equation.params["lhs_dilation"])  # of a transposed convolution
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * inputs / zeros
