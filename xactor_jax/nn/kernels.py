"""Attention kernels of accelerators, which never hold all scores; only nn/attention.py calls them.

TPU: splash attention, which also skips blocks of a mask that are empty
(jax.experimental.pallas.ops.tpu.splash_attention). NVIDIA: cuDNN's (jax.nn.dot_product_attention).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from xactor_jax.sharding import on_each_device

LANES = 128  # heads and blocks of a TPU kernel are multiples of it
BLOCK = 512  # tokens that a TPU kernel holds at a time, at most
MARK = 8  # numbers that are added to a head, whose width cuDNN wants to be a multiple of it
HIDDEN = -30_000.0  # a product of query and key that is far below any other, finite in fp16
WORTH_IT = 2**18  # pairs of query and key from which on a kernel pays

Mask = Bool[Array, "#b #1 #q k"] | Bool[np.ndarray, "#b #1 #q k"] | None


def suits_splash(query: Array, key: Array, mask: Mask, earlier: Any) -> bool:
    """Whether the TPU kernel can compute it, and gains by it."""
    if earlier is not None:
        return False
    known = mask is None or mask.shape[2] == 1 or _is_static(mask)
    return known and query.shape[1] * key.shape[1] >= WORTH_IT


def suits_cudnn(query: Array, key: Array, mask: Mask, earlier: Any) -> bool:
    """Whether cuDNN's kernel can compute it, and gains by it.

    It takes half precision, heads of up to 128 numbers, even counts of tokens (its backward pass),
    and GPUs since Ampere (of compute capability 8).
    """
    q, k = query.shape[1], key.shape[1]
    d = query.shape[-1] + (MARK if _hides_keys(mask) else 0)
    if query.dtype not in (jnp.bfloat16, jnp.float16) or d % 8 or d > 128 or earlier is not None:
        return False
    return q % 2 == k % 2 == 0 and q * k >= WORTH_IT and _since_ampere()


def _since_ampere() -> bool:
    """Whether the GPUs at hand are NVIDIA's and have the kernel; other devices are not asked."""
    capability = getattr(jax.local_devices()[0], "compute_capability", "8.0")
    major = capability.partition(".")[0]
    return major.isdecimal() and int(major) >= 8


def cudnn(
    query: Float[Array, "b q heads d"],
    key: Float[Array, "b k heads d"],
    value: Float[Array, "b k heads d"],
    mask: Mask,
) -> Float[Array, "b q heads d"]:
    """Attention by cuDNN; arguments are those of nn.attention.attention."""
    scale, d = query.shape[-1] ** -0.5, value.shape[-1]
    if mask is not None and _hides_keys(mask):
        query, key, value = marked(query, key, value, mask)
        mask = None
    if mask is not None:  # the kernel wants a row for every query
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
    found = jax.nn.dot_product_attention(
        query, key, value, mask=mask, scale=scale, implementation="cudnn"
    )
    return found[..., :d]


def marked(
    query: Float[Array, "b q heads d"],
    key: Float[Array, "b k heads d"],
    value: Float[Array, "b k heads d"],
    mask: Bool[Array, "#b 1 1 k"] | Bool[np.ndarray, "#b 1 1 k"],
) -> tuple[Float[Array, "b q heads e"], Float[Array, "b k heads e"], Float[Array, "b k heads e"]]:
    """Heads of `MARK` more numbers, by which hidden keys score far below all others.

    It is the same attention without a mask, which cuDNN would want for every pair of tokens.
    """

    def widened(x: Array, marks: Array) -> Array:
        wider = jnp.pad(x, [(0, 0)] * 3 + [(0, MARK)])
        return wider.at[..., x.shape[-1]].set(marks.astype(x.dtype))

    hidden = jnp.where(mask[:, 0, 0, :, None], 0.0, HIDDEN)
    return widened(query, jnp.ones(())), widened(key, hidden), widened(value, jnp.zeros(()))


def _hides_keys(mask: Mask) -> bool:
    return mask is not None and mask.shape[2] == 1


def splash(
    query: Float[Array, "b q heads d"],
    key: Float[Array, "b k heads d"],
    value: Float[Array, "b k heads d"],
    mask: Mask,
    *,
    interpret: bool = False,
) -> Float[Array, "b q heads d"]:
    """Attention by the TPU kernel; arguments are those of nn.attention.attention.

    The mask hides keys from all queries; or it is numpy's and the same for all rows: known when
    compiling, its empty blocks cost nothing.
    interpret: compute what the kernel would, on any device.
    """
    b, q, _, d = query.shape
    k = key.shape[1]
    block_q, block_k = (min(BLOCK, _up(count, LANES)) for count in (q, k))
    pads = _up(q, block_q) - q, _up(k, block_k) - k, _up(d, LANES) - d
    heads_first = (
        jnp.pad(x.swapaxes(1, 2), [(0, 0), (0, 0), (0, tokens), (0, pads[2])])
        for x, tokens in ((query * d**-0.5, pads[0]), (key, pads[1]), (value, pads[1]))
    )
    static, seen = None, jnp.ones((b, k), bool)
    if mask is not None and _is_static(mask):
        static = np.pad(np.broadcast_to(mask[0, 0], (q, k)), [(0, pads[0]), (0, pads[1])])
    elif mask is not None:
        seen = jnp.broadcast_to(mask[:, 0, 0], (b, k))
    seen = jnp.pad(seen, [(0, 0), (0, pads[1])])
    kernel = functools.partial(_of_row, static, block_q, block_k, interpret)
    found = on_each_device(jax.vmap(kernel), heads=1)(*heads_first, seen)
    return found[:, :, :q, :d].swapaxes(1, 2)


def _is_static(mask: Any) -> bool:
    return isinstance(mask, np.ndarray) and mask.shape[:2] == (1, 1)


def _of_row(
    static: np.ndarray | None,
    block_q: int,
    block_k: int,
    interpret: bool,
    query: Float[Array, "heads q d"],
    key: Float[Array, "heads k d"],
    value: Float[Array, "heads k d"],
    seen: Bool[Array, " k"],
) -> Float[Array, "heads q d"]:
    """One row of the batch."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as pallas
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    heads, q, _ = query.shape
    k = key.shape[1]
    sizes = pallas.BlockSizes(
        block_q=block_q,
        block_kv=block_k,
        block_kv_compute=block_k,
        block_q_dkv=block_q,
        block_kv_dkv=block_k,
        block_kv_dkv_compute=block_k,
        block_q_dq=block_q,
        block_kv_dq=block_k,
    )
    make = functools.partial(
        pallas.make_splash_mha_single_device, block_sizes=sizes, interpret=interpret
    )
    one = masks.FullMask((q, k)) if static is None else masks.NumpyMask(static)
    segments = pallas.SegmentIds(q=jnp.zeros(q, jnp.int32), kv=1 - seen.astype(jnp.int32))
    # Its tables are made here, inside the trace: as arrays they would need a device to lie on.
    attend: Any = make(mask=masks.MultiHeadMask([one] * heads))
    return attend(query, key, value, segments)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
