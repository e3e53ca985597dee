"""Blocks that repeat: compiled once, and computed again in the backward pass to save memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

M = TypeVar("M", bound=nnx.Module)
Carry = TypeVar("Carry")


def repeated(
    step: Callable[[M, Carry, Any], tuple[Carry, Any]],
    blocks: Sequence[M],
    carry: Carry,
    inputs: Sequence[Any] | None = None,
    *,
    scan: bool = False,
    rematerialise: bool = False,
) -> tuple[Carry, list[Any]]:
    """Each block's step after the one before it: the last carry, and every block's own result.

    Args:
      step: (block, carry, input) -> (carry, result).
      inputs: one a block, of the same shapes; None where there are none.
      scan: compile one block instead of all. Their weights, which stay apart in the checkpoint,
        are stacked for it at every call; equal blocks only.
      rematerialise: keep nothing of a block but its carry for the backward pass, and compute the
        rest again.
    """
    graphs, weights = zip(*(nnx.split(block) for block in blocks), strict=True)
    inputs = [None] * len(blocks) if inputs is None else list(inputs)

    def of_graph(graph: Any) -> Callable[[Carry, tuple[Any, Any]], tuple[Carry, Any]]:
        def through(carry: Carry, of_block: tuple[Any, Any]) -> tuple[Carry, Any]:
            return step(nnx.merge(graph, of_block[0]), carry, of_block[1])

        return jax.checkpoint(through) if rematerialise else through

    if scan:
        stacked = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *zip(weights, inputs, strict=True)
        )
        carry, results = jax.lax.scan(of_graph(graphs[0]), carry, stacked)
        return carry, [jax.tree.map(lambda x, n=n: x[n], results) for n in range(len(blocks))]
    results = []
    for graph, of_block in zip(graphs, zip(weights, inputs, strict=True), strict=True):
        carry, result = of_graph(graph)(carry, of_block)
        results.append(result)
    return carry, results
