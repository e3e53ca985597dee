"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), and what a renderer goes without.

X-NeMo's unconditional half lacks three things at once (bytedance/x-nemo-inference src/pipelines):
the reference tokens, the image token, which is zero, and the driving motion, in whose place every
frame has the motion of the reference itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def guided(conditional: Array, unconditional: Array, scale: float | Array) -> Array:
    """unconditional + scale (conditional - unconditional); a scale of 1 is no guidance."""
    return unconditional + scale * (conditional - unconditional)


def guided_by_each(outputs: Float[Array, "kb ..."], scales: Float[Array, "k ..."]) -> Array:
    """Guidance by several conditions, each with a scale of its own.

        full + Σ_i (scale_i - 1) (full - without_i)

    which for one condition is `guided`.

    Args:
      outputs: the full output of a batch, then that without each condition, one after the other.
      scales: one for each condition, or arrays of them, broadcast against the output.
    """
    full, *without = jnp.split(outputs, len(scales) + 1)
    changes = [(scale - 1) * (full - each) for scale, each in zip(scales, without, strict=True)]
    return sum(changes, full)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a renderer is told of a batch of videos, computed once for all steps."""

    motion: Any  # arrays (b, t, ...): motion tokens, and whatever else belongs to a frame
    reference_seen: Bool[Array, " b"]  # False: the attention must not see the reference
    reference: Sequence[Any] = ()  # its tokens, or keys and values of them (`UNet.share`)
    image_token: Float[Array, "b k i"] | None = None

    def at(self, frames: Int[np.ndarray, " n"]) -> Conditions:
        """The conditions of some of the frames."""
        motion = jax.tree.map(lambda each: each[:, frames], self.motion)
        return dataclasses.replace(self, motion=motion)

    def null(self, reference_motion: Any) -> Conditions:
        """The unconditional half: `reference_motion` is like `motion`, in arrays (b, ...)."""
        return dataclasses.replace(
            self,
            motion=jax.tree.map(
                lambda moving, still: jnp.broadcast_to(still[:, None], moving.shape),
                self.motion,
                reference_motion,
            ),
            reference_seen=jnp.zeros_like(self.reference_seen),
            image_token=None if self.image_token is None else jnp.zeros_like(self.image_token),
        )


ConditionedDenoiser = Callable[
    [Float[Array, "b t h w c"], Float[Array, " b"], Conditions], Float[Array, "b t h w c"]
]


def both(unconditional: Conditions, conditional: Conditions) -> Conditions:
    """Both halves as one batch, the unconditional one first."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), unconditional, conditional)


def guided_output(
    denoise: ConditionedDenoiser,
    z: Float[Array, "b t h w c"],
    level: Float[Array, ""],
    halves: Conditions,
    scale: float | Array,
) -> Float[Array, "b t h w c"]:
    """Guided output of one call of the network; `halves` are of `both`."""
    doubled = jnp.concatenate([z, z])
    output = denoise(doubled, jnp.full(len(doubled), level), halves).astype(jnp.float32)
    return guided(output[len(z) :], output[: len(z)], scale)
