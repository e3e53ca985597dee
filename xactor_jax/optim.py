"""The optimiser: AdamW with warm-up, clipped gradients, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from xactor_jax.errors import InputError
from xactor_jax.sharding import is_stacked
from xactor_jax.state import named_tensors, tensor_name


def learning_rate_schedule(
    schedule: str, learning_rate: float, warmup_steps: int, steps: int
) -> optax.Schedule:
    """Learning rate of an update, as a function of the number of updates before it.

    Linear from 0 over `warmup_steps`, then "constant" or "cosine" to 0 at `steps`.
    Raises InputError for another name or a warm-up longer than the training.
    """
    if schedule not in ("cosine", "constant"):
        raise InputError(f"config.optimizer.schedule is {schedule!r}; use 'cosine' or 'constant'")
    if not 0 <= warmup_steps < steps:
        raise InputError(
            f"config.optimizer.warmup_steps={warmup_steps} must lie below config.steps={steps}"
        )
    if schedule == "cosine":
        main = optax.cosine_decay_schedule(learning_rate, steps - warmup_steps)
    else:
        main = optax.constant_schedule(learning_rate)
    if warmup_steps == 0:
        return main
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


def weight_decay_mask(params: Any) -> Any:
    """True for matrices and convolution kernels, False for biases, scales and single vectors."""

    def decays(path: tuple, leaf: Any) -> bool:
        return leaf.ndim - is_stacked(tensor_name(path)) >= 2

    return jax.tree_util.tree_map_with_path(decays, params)


def parts_mask(params: Any, parts: Sequence[str], field: str) -> Any:
    """True for tensors that lie in one of the named `parts`, such as "renderer/encoder".

    Raises InputError, which names config.optimizer's `field`, for a part that no tensor lies in.
    """

    def lies_in(name: str, part: str) -> bool:
        return name == part or name.startswith(f"{part}/")

    names = named_tensors(params)
    for part in parts:
        if not any(lies_in(name, part) for name in names):
            raise InputError(f"config.optimizer.{field}: no parameters in {part!r}")
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(lies_in(tensor_name(path), part) for part in parts), params
    )


def without_gradient(params: Any, frozen: Sequence[str]) -> Any:
    """The same parameters, but no gradient of the `frozen` parts is computed; it is zero."""
    return jax.tree.map(
        lambda leaf, is_frozen: jax.lax.stop_gradient(leaf) if is_frozen else leaf,
        params,
        parts_mask(params, frozen, "frozen"),
    )


def slow_wide_kernels(usual_inputs: int) -> optax.GradientTransformation:
    """Scale updates of a kernel with n inputs, its window's included, by min(1, usual_inputs / n).

    Adam moves every weight alike, so that a step changes what a kernel makes of correlated inputs
    in proportion to their number. At one rate for all, the features of a U-Net soon grow along one
    direction, and its group norms divide everything else away. The rule is muP's for hidden weights
    (Yang et al., arXiv 2203.03466, table 3). It slows that growth; what ends it is enough weight
    decay, since before a norm nothing else bounds a kernel (Kosson et al., arXiv 2305.17212).
    """

    def scaled(path: tuple, update: Array) -> Array:
        shape = update.shape[is_stacked(tensor_name(path)) :]
        inputs = math.prod(shape[:-1]) if len(shape) >= 2 else 1
        return update * min(1.0, usual_inputs / inputs)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))


def make_optimizer(config: Any, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optax chain and its learning rate, from `config.optimizer` and the number of steps.

    Fields: learning_rate, warmup_steps, schedule, weight_decay, b1, b2, clip_norm, frozen (parts
    that keep their values to the last bit, once `without_gradient` has made their gradients zero),
    and bounded (parts whose wide kernels learn slowly, see `slow_wide_kernels`, with their own
    bounded_usual_inputs and bounded_weight_decay).
    """
    schedule = learning_rate_schedule(
        config.schedule, config.learning_rate, config.warmup_steps, steps
    )

    def bounded(params: Any) -> Any:
        return parts_mask(params, config.bounded, "bounded")

    def decays(params: Any) -> Any:
        frozen = parts_mask(params, config.frozen, "frozen")
        return jax.tree.map(lambda a, b: a and not b, weight_decay_mask(params), frozen)

    def decays_more(params: Any) -> Any:
        return jax.tree.map(lambda a, b: a and b, decays(params), bounded(params))

    chain = [
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=config.b1, b2=config.b2),
    ]
    if config.bounded:
        further = config.bounded_weight_decay - config.weight_decay
        chain += [
            optax.masked(slow_wide_kernels(config.bounded_usual_inputs), bounded),
            optax.add_decayed_weights(further, decays_more),
        ]
    chain += [
        optax.add_decayed_weights(config.weight_decay, decays),
        optax.scale_by_learning_rate(schedule),
    ]
    return optax.chain(*chain), schedule


def ema_decay(decay: float, updates: Int[Array, ""]) -> Float[Array, ""]:
    """Decay after `updates` earlier updates: min(decay, (1 + n) / (10 + n)), so that the random
    start is forgotten at once.

    Source: TensorFlow `tf.train.ExponentialMovingAverage(num_updates=)`.
    """
    n = updates.astype(jnp.float32)
    return jnp.minimum(decay, (1 + n) / (10 + n))


def update_ema(ema: Any, params: Any, decay: float, updates: Int[Array, ""]) -> Any:
    """Average of the weights after one more update; fp32, same structure as `params`."""
    return optax.incremental_update(params, ema, 1 - ema_decay(decay, updates))
