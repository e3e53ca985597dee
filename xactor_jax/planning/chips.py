"""Accelerators: what one device holds and does, and slices of TPUs that need not be at hand."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from xactor_jax.errors import InputError

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """What one JAX device has. Rates are peaks, a second."""

    name: str
    memory: int  # bytes
    arithmetic: float  # multiplications and additions of bfloat16 matrices
    bandwidth: float  # bytes from and to its own memory
    links: float  # bytes sent to other devices of its slice or host, all links together
    network: float  # bytes sent beyond


# Per device: a v4 or v5p chip is one device, a tpu7x chip two. Memory is what libtpu's compiler
# grants of the nominal figure. Other figures: cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x;
# links: half of the two-way inter-chip bandwidth; network: the host's cards, shared by its chips.
TPUS = {
    name: Chip(
        name=name,
        memory=int(gib * GIB),
        arithmetic=teraflops * 1e12,
        bandwidth=bandwidth * 1e9,
        links=links * 1e9,
        network=network * 1e9,
    )
    for name, gib, teraflops, bandwidth, links, network in (
        ("v4", 30.75, 275, 1200, 150, 6.25),
        ("v5e", 15.75, 197, 819, 200, 3.125),
        ("v5p", 95.74, 459, 2765, 300, 6.25),
        ("v6e", 31.25, 918, 1640, 400, 12.5),
        ("tpu7x", 94.75, 1153.5, 3690, 300, 6.25),
    )
}
# NVIDIA's data sheets: teraflops of dense bfloat16 (float16 before), GB/s of memory and of NVLink
# (or PCIe) one way.
GPUS = {
    "GB200": (2500, 8000, 900),
    "B200": (2250, 8000, 900),
    "GH200": (989, 4000, 450),
    "H200": (989, 4800, 450),
    "H100": (989, 3350, 450),
    "A100": (312, 2039, 300),
    "L40S": (362, 864, 32),
    "L4": (121, 300, 32),
    "V100": (125, 900, 150),
    "T4": (65, 320, 16),
}
GPU_NETWORK = 50e9  # eight cards of 400 Gbit/s for eight GPUs


def topology(name: str, slices: int = 1) -> tuple[Sequence[jax.Device], Chip]:
    """The devices of `slices` equal TPU slices such as "v5e:4x4", which need not exist.

    Raises InputError where there is no such slice, or libtpu is not installed.
    """
    generation, _, shape = name.partition(":")
    if generation not in TPUS or not shape:
        raise InputError(
            f"--topology={name}: use local, cpu:COUNT or a TPU slice such as v5e:4x4 "
            f"({', '.join(TPUS)})"
        )
    # libtpu asks a TPU machine's metadata server, which is not there; these say what it would.
    for variable, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_MIN_LOG_LEVEL", "3"),
        ("TPU_STDERR_LOG_LEVEL", "3"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),  # nothing is held: several plans may be made at once
    ):
        os.environ.setdefault(variable, value)
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if generation == "v4":  # otherwise its two cores are two devices
        options["chip_config_name"] = "megacore"
    if set(shape.split("x")) == {"1"}:  # one chip, as Colab has; hosts else have four
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:
        if importlib.util.find_spec("libtpu") is None:
            raise InputError(
                f"--topology={name}: needs libtpu to compile; pip install 'xactor_jax[plan]'"
            ) from None
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--topology={name}: no such slice ({reason})") from None
    return found.devices, TPUS[generation]


def local() -> tuple[Sequence[jax.Device], Chip]:
    """The devices of this machine."""
    devices = jax.devices()
    first = devices[0]
    for name, chip in TPUS.items():
        if first.platform == "tpu" and _TPU_KINDS[name] == first.device_kind:
            return devices, chip
    known = _gpu(first.device_kind)
    if first.platform == "gpu" and known:
        teraflops, bandwidth, links = GPUS[known]
        rates = (teraflops * 1e12, bandwidth * 1e9, links * 1e9)
    else:
        rates = _measured(len(devices))
    return devices, Chip(
        name=first.device_kind,
        memory=_memory(devices),
        arithmetic=rates[0],
        bandwidth=rates[1],
        links=rates[2],
        network=GPU_NETWORK,
    )


def peak_arithmetic(device: jax.Device) -> float | None:
    """Floating-point operations a second of bfloat16 matrices; None of a device no table knows."""
    kind = device.device_kind
    for name, chip in TPUS.items():
        if _TPU_KINDS[name] == kind:
            return chip.arithmetic
    known = _gpu(kind)
    return GPUS[known][0] * 1e12 if known else None


def _gpu(kind: str) -> str | None:
    """The name in `GPUS` that a device's kind has as a word: an L40 is no L4."""
    return next((name for name in GPUS if re.search(rf"\b{name}\b", kind)), None)


_TPU_KINDS = {
    "v4": "TPU v4",
    "v5e": "TPU v5 lite",
    "v5p": "TPU v5",
    "v6e": "TPU v6 lite",
    "tpu7x": "TPU7x",
}


def _memory(devices: Sequence[jax.Device]) -> int:
    """Of one device; simulated ones share that of the machine."""
    statistics = devices[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(devices)


def _measured(count: int) -> tuple[float, float, float]:
    """Arithmetic, memory and links of a device that no table knows, one of `count` that share it.

    What is sent from one such device to another is copied in memory.
    """
    side = 1024
    x = jnp.ones((side, side))

    def seconds(function: Callable[[jax.Array], jax.Array]) -> float:
        compiled = jax.jit(function)
        compiled(x).block_until_ready()
        begun = time.perf_counter()
        for _ in range(4):
            compiled(x).block_until_ready()
        return (time.perf_counter() - begun) / 4

    arithmetic = 2 * side**3 / seconds(lambda x: x @ x) / count
    bandwidth = 2 * x.nbytes / seconds(lambda x: x + 1) / count
    return arithmetic, bandwidth, bandwidth
