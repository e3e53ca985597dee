"""Time and memory of the published networks against torch, in one run and on the same cores.

python -m benchmarks.networks --output=networks.json

Each network runs in processes of its own, in turns with its baseline, which needs the extra
`parity` (benchmarks/torch_networks.py). Weights are random, in fp32. Memory is the most that a
process held, its libraries included.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xactor_jax.command import Parser, keep_memory, run
from xactor_jax.errors import InputError
from xactor_jax.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from xactor_jax.models.motion_encoder import MotionEncoder, MotionEncoderConfig
from xactor_jax.models.video_unet import UNet, UNetConfig
from xactor_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from xactor_jax.nn.layers import abstract

NETWORKS = ("denoiser", "reference_network", "motion_encoder", "vae_decoder", "wav2vec2")
SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "channels": (320, 640, 1280, 1280),
        "image_token": 768,
        "side": 64,  # of latents, of pictures of 512 pixels
        "frames": 2,
        "crops": 4,
        "codec_channels": (128, 256, 512, 512),
        "seconds": 10,
    },
    "small": {
        "channels": (32, 64, 128, 128),
        "image_token": 64,
        "side": 16,
        "frames": 3,
        "crops": 1,
        "codec_channels": (32, 64, 64),
        "seconds": 1,
    },
}
SMALL_WAV2VEC2: dict[str, Any] = {"width": 128, "layers": 2, "heads": 2, "feed_forward": 192}
Run = Callable[[], Any]


def with_weights(make: Callable[[nnx.Rngs], Any], call: Callable[..., Any], *inputs: Any) -> Any:
    """(parameters, the compiled call): weights are drawn one by one, so that none exists twice."""
    graph, state = nnx.split(abstract(make))
    draw = np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(state)
    filled = [jnp.asarray(draw.standard_normal(x.shape, np.float32) * 0.02) for x in leaves]
    state = jax.tree.unflatten(structure, filled)
    start = time.perf_counter()
    compiled = (
        jax.jit(lambda state, *inputs: call(nnx.merge(graph, state), *inputs))
        .lower(state, *inputs)
        .compile()
    )
    seconds = time.perf_counter() - start
    parameters = sum(x.size for x in jax.tree.leaves(nnx.filter_state(state, nnx.Param)))
    return parameters, seconds, lambda: compiled(state, *inputs)


def ours(network: str, size: str) -> Any:
    """(number of parameters, seconds to compile, the call) of a network of this package."""
    keep_memory()  # as every command does
    s = SIZES[size]
    draw = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return draw.standard_normal(shape, np.float32)

    side, frames = s["side"], s["frames"]
    unet = {"channels": s["channels"], "image_token": s["image_token"]}
    level = np.full(1, 0.5, np.float32)
    if network == "denoiser":
        config = UNetConfig(**unet, temporal=True)
        return with_weights(
            lambda rngs: UNet(config, rngs=rngs),
            lambda n, z, token, motion, shared: n(
                z, level, image_token=token, motion=motion, reference=shared
            )[0],
            normal(1, frames, side, side, 4),
            normal(1, 1, s["image_token"]),
            normal(1, frames, 32, 16),
            [tuple(normal(1, n**2, 8, c // 8) for _ in range(2)) for n, c in attention_maps(s)],
        )
    if network == "reference_network":
        config = UNetConfig(**unet, out_channels=None, motion_token=0)
        return with_weights(
            lambda rngs: UNet(config, rngs=rngs),
            lambda n, z, token: n(z, 0 * level, image_token=token)[1],
            normal(1, 1, side, side, 4),
            normal(1, 1, s["image_token"]),
        )
    if network == "motion_encoder":
        return with_weights(
            lambda rngs: MotionEncoder(MotionEncoderConfig(), rngs=rngs),
            lambda n, x, box: n(x, box),
            normal(s["crops"], 224, 224, 3),
            normal(s["crops"], 3),
        )
    if network == "vae_decoder":
        codec = AutoencoderKLConfig(channels=s["codec_channels"])
        return with_weights(
            lambda rngs: AutoencoderKL(codec, rngs=rngs),
            lambda n, z: n.decode(z),
            normal(1, side, side, 4),
        )
    listener = Wav2Vec2Config(**({} if size == "full" else SMALL_WAV2VEC2))
    return with_weights(
        lambda rngs: Wav2Vec2(listener, rngs=rngs),
        lambda n, audio: n(audio),
        normal(1, 16_000 * s["seconds"]),
    )


def attention_maps(size: dict[str, Any]) -> list[tuple[int, int]]:
    """Edge and channels of each attention block of a U-Net: down, middle, up."""
    levels = [(size["side"] // 2**n, c) for n, c in enumerate(size["channels"])]
    down = [level for level in levels[:-1] for _ in range(2)]
    up = [level for level in levels[-2::-1] for _ in range(3)]
    return [*down, levels[-1], *up]


def baseline(network: str, size: str) -> Any:
    """(number of parameters, 0, the call) of the same network in torch."""
    try:
        import torch
    except ImportError:
        raise InputError('the baselines need torch: pip install ".[parity]"') from None

    from benchmarks import torch_networks as theirs

    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_grad_enabled(False)
    s = SIZES[size]
    unet = (s["channels"], s["image_token"])
    sizes = {}
    if size == "small":
        sizes = {
            "hidden_size": SMALL_WAV2VEC2["width"],
            "num_hidden_layers": SMALL_WAV2VEC2["layers"],
            "num_attention_heads": SMALL_WAV2VEC2["heads"],
            "intermediate_size": SMALL_WAV2VEC2["feed_forward"],
        }
    module, call = {
        "denoiser": lambda: theirs.denoiser(*unet, s["frames"], s["side"]),
        "reference_network": lambda: theirs.reference_network(*unet, s["side"]),
        "motion_encoder": lambda: theirs.motion_encoder(s["crops"]),
        "vae_decoder": lambda: theirs.vae_decoder(s["codec_channels"], s["side"]),
        "wav2vec2": lambda: theirs.wav2vec2(sizes, s["seconds"]),
    }[network]()
    module.eval()
    return sum(p.numel() for p in module.parameters()), 0.0, call


def measure(network: str, size: str, side: str, repeats: int) -> dict[str, float]:
    """Of this process: the median of some runs after the first, and the most memory it held."""
    parameters, compiling, call = (ours if side == "jax" else baseline)(network, size)
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "parameters": parameters,
        "compile_seconds": compiling,
        "seconds": float(np.median(seconds)),
        "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024),
    }


def in_a_process(network: str, size: str, side: str, repeats: int, cache: str) -> dict[str, float]:
    """`measure` in a new process, with compiled programs kept in `cache`."""
    arguments = [
        f"--networks={network}",
        f"--size={size}",
        f"--side={side}",
        f"--repeats={repeats}",
    ]
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.networks", *arguments],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(found.stdout.splitlines()[-1])


def compare(network: str, size: str, repeats: int) -> dict[str, float]:
    """Ratios of this package to torch, from two processes each, taken in turns."""
    with tempfile.TemporaryDirectory() as cache:
        runs: dict[str, list[dict[str, float]]] = {"jax": [], "torch": []}
        for side in ("jax", "torch", "jax", "torch"):
            runs[side].append(in_a_process(network, size, side, repeats, cache))
    # The second process of each: nothing is compiled any more.
    own, other = runs["jax"][1], runs["torch"][1]
    best = {side: min(one["seconds"] for one in both) for side, both in runs.items()}
    return {
        "parameters": own["parameters"],
        "seconds": best["jax"],
        "torch_seconds": best["torch"],
        "time_ratio": best["jax"] / best["torch"],
        "peak_bytes": own["peak_bytes"],
        "torch_peak_bytes": other["peak_bytes"],
        "memory_ratio": own["peak_bytes"] / other["peak_bytes"],
        "compile_seconds": runs["jax"][0]["compile_seconds"],
        "cached_compile_seconds": own["compile_seconds"],
    }


def main() -> None:
    """Print the measures of every network as JSON."""
    parser = Parser(__doc__.split("\n")[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help="which, with commas between")
    parser.add_argument("--size", default="full", choices=tuple(SIZES), help="of the networks")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs in each process")
    parser.add_argument("--side", choices=("jax", "torch"), help="measure this side, here, alone")
    parser.add_argument("--output", help="a JSON file to write as well")
    chosen = parser.parse_args(sys.argv[1:])
    networks = chosen.networks.split(",")
    if unknown := set(networks) - set(NETWORKS):
        raise InputError(
            f"--networks: {', '.join(sorted(unknown))} is none of {', '.join(NETWORKS)}"
        )
    if chosen.side:
        print(json.dumps(measure(networks[0], chosen.size, chosen.side, chosen.repeats)))
        return
    found = {}
    for network in networks:
        found[network] = compare(network, chosen.size, chosen.repeats)
        print(json.dumps({"network": network, **found[network]}), flush=True)
    if chosen.output:
        Path(chosen.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
