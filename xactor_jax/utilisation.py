"""How much of its devices' arithmetic a training step uses."""

from __future__ import annotations

from typing import Any

import jax

# Floating-point operations a second of one device, dense bfloat16, by how its name begins.
# Sources: cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x; NVIDIA's data sheets.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L4": 121e12,
    "Tesla T4": 65e12,
}


def seconds_at_peak(step: Any, *arguments: Any) -> float | None:
    """Time that a jitted step would take if all devices computed at their peak; None if unknown.

    The operations are those that XLA counts before it optimises: what is computed again to save
    memory is in it, and blocks under `lax.scan` count once, so that it is then too small.
    """
    kind = jax.devices()[0].device_kind
    peak = next((peak for name, peak in PEAKS.items() if kind.startswith(name)), None)
    if peak is None:
        return None
    costs = step.lower(*arguments).cost_analysis()
    return costs["flops"] / peak / jax.device_count()
