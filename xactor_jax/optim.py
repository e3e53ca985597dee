"""The optimiser: AdamW with warm-up, clipped gradients, and the average of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from xactor_jax.errors import InputError
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
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


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


def make_optimizer(config: Any, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optax chain and its learning rate, from `config.optimizer` and the number of steps.

    Fields: learning_rate, warmup_steps, schedule, weight_decay, b1, b2, clip_norm, frozen (parts
    that keep their values to the last bit, once `without_gradient` has made their gradients zero,
    and of which no moments are kept), slowed (parts that learn at another rate) and slowed_to (that
    rate, as a share of the others').

    A U-Net that learns too fast gives no sign of it: its group norms take back every overshoot, but
    its features grow along one direction until little else passes the norms (the rate tunes itself:
    Arora et al., arXiv 1812.03981).
    """
    schedule = learning_rate_schedule(
        config.schedule, config.learning_rate, config.warmup_steps, steps
    )

    def slowed(params: Any) -> Any:
        return parts_mask(params, config.slowed, "slowed")

    def learns(params: Any) -> Any:
        frozen = parts_mask(params, config.frozen, "frozen")
        return jax.tree.map(lambda is_frozen: not is_frozen, frozen)

    chain = [
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule,
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=weight_decay_mask,
        ),
    ]
    if config.slowed:
        chain.append(optax.masked(optax.scale(config.slowed_to), slowed))
    optimizer = optax.chain(*chain)
    return optax.masked(optimizer, learns) if config.frozen else optimizer, schedule


def updates_done(opt_state: Any) -> Int[Array, ""]:
    """Updates that an optimizer of `make_optimizer` has done: all steps but those skipped."""
    return optax.tree.get_all_with_path(opt_state, "count")[0][1]


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
