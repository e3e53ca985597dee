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
    jaxpr = jax.make_jaxpr(loss)(params, *others).jaxpr
    count = len(jax.tree.leaves(params))
    learns = [n < count for n in range(len(jaxpr.invars))]
    return _count(jaxpr, learns, [True] * len(jaxpr.outvars))[0]


def executed_flops(jaxpr: Jaxpr) -> float:
    """Of a function as it was traced, what it computes again included."""
    return _count(jaxpr, [False] * len(jaxpr.invars), [False] * len(jaxpr.outvars))[0]


def _count(
    jaxpr: Jaxpr, learns: Sequence[bool], wanted: Sequence[bool]
) -> tuple[float, list[bool]]:
    """Operations, and which inputs have a gradient that the outputs' gradients lead to.

    learns: which inputs depend on a parameter; wanted: which outputs the loss depends on.
    """
    depends = _dependent(jaxpr, learns)
    reached = {
        variable for variable, want in zip(jaxpr.outvars, wanted, strict=True) if want
    } & depends
    total = 0.0
    for equation in reversed(jaxpr.eqns):
        given = [variable in depends for variable in _variables(equation.invars)]
        asked = [variable in reached for variable in equation.outvars]
        operations, leads = _of_equation(equation, given, asked)
        total += operations
        for variable, given_one, lead in zip(equation.invars, given, leads, strict=True):
            if given_one and lead:
                reached.add(variable)
    return total, [variable in reached for variable in jaxpr.invars]


def _of_equation(equation: Any, given: list[bool], asked: list[bool]) -> tuple[float, list[bool]]:
    """Operations of one equation, and which inputs its asked outputs lead to."""
    name, params = equation.primitive.name, equation.params
    leads = [any(asked)] * len(given)
    gradients = sum(given) if any(asked) else 0
    if name == "stop_gradient":
        return 0, [False] * len(given)
    if name == "dot_general":
        return _product(equation) * (1 + gradients), leads
    if name == "conv_general_dilated":
        return _convolution(equation) * (1 + gradients), leads
    if name == "pallas_call":  # attention: two products, and four in its gradient
        grid = [n for n in params["grid_mapping"].grid if isinstance(n, int)]
        operations = _count(*_plain(params["jaxpr"]))[0]
        return operations * math.prod(grid) * (3 if gradients else 1), leads
    if name == "scan":
        return _scan(equation, given, asked)
    if name == "while":  # how many passes there are is known only when it runs: one
        return _count(*_plain(params["body_jaxpr"]))[0], leads
    if name == "cond":
        branches = [_count(_open(b), given[1:], asked) for b in params["branches"]]
        operations = max(operations for operations, _ in branches)
        return operations, [False, *map(any, zip(*(f for _, f in branches), strict=True))]
    inner = _inner(equation)
    if inner is None:
        return 0, leads
    operations, leads = _count(inner, given, asked)
    times = params["mesh"].size if name == "shard_map" else 1
    return operations * times, leads


def _dependent(jaxpr: Jaxpr, learns: Sequence[bool]) -> set[Any]:
    """Variables with a gradient by the inputs that learn."""
    found = {variable for variable, learn in zip(jaxpr.invars, learns, strict=True) if learn}
    for equation in jaxpr.eqns:
        given = [variable in found for variable in _variables(equation.invars)]
        if not any(given) or equation.primitive.name == "stop_gradient":
            continue
        outputs = [True] * len(equation.outvars)
        if equation.primitive.name == "scan":
            inner, given = _stable(equation, given)
            outputs = _outputs(inner, given)
        elif (inner := _inner(equation)) is not None:
            outputs = _outputs(inner, given)
        found |= {
            variable
            for variable, learned in zip(equation.outvars, outputs, strict=True)
            if learned and _differentiable(variable)
        }
    return found


def _outputs(jaxpr: Jaxpr, learns: Sequence[bool]) -> list[bool]:
    found = _dependent(jaxpr, learns)
    return [variable in found for variable in _variables(jaxpr.outvars)]


def _variables(variables: Sequence[Any]) -> list[Any]:
    """With None in the place of constants, which cannot be looked up."""
    return [None if isinstance(variable, Literal) else variable for variable in variables]


def _loop(equation: Any) -> tuple[Jaxpr, int, int]:
    """A scan's body, and how many of its inputs are constants and how many are carried.

    What is carried is no stack of passes; JAX's versions differ in how they say so.
    """
    inner = _open(equation.params["jaxpr"])

    def stacks(outer: Sequence[Any], within: Sequence[Any]) -> int:
        pairs = zip(outer, within, strict=True)
        return sum(len(a.aval.shape) > len(b.aval.shape) for a, b in pairs)

    carried = len(inner.outvars) - stacks(equation.outvars, inner.outvars)
    constants = len(inner.invars) - carried - stacks(equation.invars, inner.invars)
    return inner, constants, carried


def _stable(equation: Any, given: list[bool]) -> tuple[Jaxpr, list[bool]]:
    """A scan's body, and which of its inputs depend on a parameter after any number of passes."""
    inner, constants, carried = _loop(equation)
    while True:
        made = _outputs(inner, given)[:carried]
        carry = [a or b for a, b in zip(given[constants : constants + carried], made, strict=True)]
        if carry == given[constants : constants + carried]:
            return inner, given
        given = [*given[:constants], *carry, *given[constants + carried :]]


def _scan(equation: Any, given: list[bool], asked: list[bool]) -> tuple[float, list[bool]]:
    (_, constants, carried), (inner, given) = _loop(equation), _stable(equation, given)
    while True:  # likewise backwards
        operations, leads = _count(inner, given, asked)
        back = leads[constants : constants + carried]
        carry = [a or b for a, b in zip(asked[:carried], back, strict=True)]
        if carry == asked[:carried]:
            return operations * equation.params["length"], leads
        asked = [*carry, *asked[carried:]]


def _differentiable(variable: Any) -> bool:
    return jax.dtypes.issubdtype(variable.aval.dtype, np.inexact)


def _open(jaxpr: Any) -> Jaxpr:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _plain(jaxpr: Any) -> tuple[Jaxpr, list[bool], list[bool]]:
    """A function of which no gradient is asked."""
    inner = _open(jaxpr)
    return inner, [False] * len(inner.invars), [False] * len(inner.outvars)


def _inner(equation: Any) -> Jaxpr | None:
    """The function of a call: jit, checkpoint, custom derivatives; None for other equations."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in equation.params:
            inner = _open(equation.params[name])
            if len(inner.invars) == len(equation.invars):
                return inner
    return None


def _product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(equation: Any) -> float:
    numbers, kernel = equation.params["dimension_numbers"], equation.invars[1].aval.shape
    inputs = math.prod(kernel) // kernel[numbers.rhs_spec[0]]  # of one output number
    zeros = math.prod(equation.params["lhs_dilation"])  # of a transposed convolution
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * inputs / zeros
