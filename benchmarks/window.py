"""Frames a second of the full denoiser at 512 pixels, in windows of 24 frames.

python -m benchmarks.window --peak_teraflops=989

Random weights in bfloat16, with guidance, whose two halves are one batch; `peak_teraflops` is what
the accelerator's maker says of it in bfloat16, without sparsity.
"""

from __future__ import annotations

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.networks import SIZES, attention_maps
from xactor_jax.command import Parser, run, start_up
from xactor_jax.models.video_unet import UNet, UNetConfig
from xactor_jax.nn.layers import abstract
from xactor_jax.planning.model_flops import executed_flops
from xactor_jax.sharding import MESH_AXES, make_mesh


def measure(
    size: str, frames: int, steps: int, repeats: int, dtype: str
) -> dict[str, float | None]:
    """Seconds of one denoising pass over a guided window, and what follows from them."""
    s, dtype_ = SIZES[size], jnp.dtype(dtype)
    config = UNetConfig(
        channels=s["channels"], image_token=s["image_token"], temporal=True, dtype=dtype
    )
    graph, state = nnx.split(abstract(lambda rngs: UNet(config, rngs=rngs)))
    side = s["side"]
    shared = [
        (jax.ShapeDtypeStruct((2, n**2, config.heads, c // config.heads), dtype_),) * 2
        for n, c in attention_maps(s)
    ]
    given = {
        "latents": (2, frames, side, side, 4),
        "image_token": (2, 1, s["image_token"]),
        "motion": (2, frames, 32, 16),
    }
    inputs = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in given.items()}

    def fill(x: jax.ShapeDtypeStruct, n: int) -> jax.Array:
        return jax.random.normal(jax.random.key(n), x.shape, x.dtype) * 0.02

    # Weights as they are computed with, which is half of what they are kept in.
    halved = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype_), state)
    leaves, structure = jax.tree.flatten((halved, shared, inputs))
    arguments = jax.tree.unflatten(structure, [fill(x, n) for n, x in enumerate(leaves)])

    def denoise(state, shared, given):
        return nnx.merge(graph, state)(
            given["latents"],
            jnp.full(2, 0.5),
            image_token=given["image_token"],
            motion=given["motion"],
            reference=shared,
            reference_seen=jnp.array([False, True]),
        )[0]

    compiled = jax.jit(denoise).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
    median = float(np.median(seconds))
    # By formula, and of attention as it is computed on a CPU: a kernel hides its products.
    with jax.set_mesh(make_mesh(dict.fromkeys(MESH_AXES, 1), jax.devices("cpu")[:1])):
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
        operations = executed_flops(jax.make_jaxpr(denoise)(*shapes).jaxpr)
    memory = compiled.memory_analysis()
    return {
        "seconds_a_pass": median,
        "frames_per_second": frames / (median * steps),
        "teraflops_a_pass": operations / 1e12,
        "teraflops": operations / median / 1e12,
        "temporary_bytes": memory and memory.temp_size_in_bytes,
    }


def main() -> None:
    """Print the measures as JSON."""
    parser = Parser(__doc__.split("\n")[0])
    parser.add_argument("--size", default="full", choices=tuple(SIZES), help="of the network")
    parser.add_argument("--frames", type=int, default=24, help="of a window")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps of a frame")
    parser.add_argument("--repeats", type=int, default=10, help="timed passes")
    parser.add_argument(
        "--dtype", default="bfloat16", choices=("float32", "bfloat16"), help="of it"
    )
    parser.add_argument("--peak_teraflops", type=float, help="of the accelerator, to compare with")
    chosen = parser.parse_args(sys.argv[1:])
    start_up()
    found = measure(chosen.size, chosen.frames, chosen.steps, chosen.repeats, chosen.dtype)
    if chosen.peak_teraflops:
        found["share_of_peak"] = found["teraflops"] / chosen.peak_teraflops
    described = {"size": chosen.size, "frames": chosen.frames, "steps": chosen.steps}
    print(json.dumps({**described, "device": jax.devices()[0].device_kind, **found}))


if __name__ == "__main__":
    run(main)
