"""Time and latency of acting, against torch and against the whole context in every pass.

python -m benchmarks.motion --size=full

All ways act the same chunks with the audio's guidance, in turns, so that a machine whose speed
varies is as fast for all; the first chunk of a turn is not counted. How full the context is makes
no difference: arrays have its size from the start. Weights are random.
The torch baseline (benchmarks/torch_motion.py) needs the extra `parity`. A real-time factor below 1
is faster than real time.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from configs.motion import get_config
from xactor_jax.command import Parser, run, start_up
from xactor_jax.config import build, released
from xactor_jax.data.audio_features import MelConfig
from xactor_jax.data.shards import FRAME_RATE, SAMPLE_RATE
from xactor_jax.data.speech_features import SpeechWindow
from xactor_jax.diffusion.guidance import guided
from xactor_jax.diffusion.noise_levels import chunk_causal_mask
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.samplers import follow
from xactor_jax.errors import InputError
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.motion_sampler import Flight, MotionSampler, MotionSampling, for_acting, heard_audio
from xactor_jax.nn.layers import abstract

GUIDANCE = 2.0
TURNS = 3  # of each way
Step = Callable[[Any, np.ndarray, np.ndarray], tuple[Any, Any]]
"""(the past, audio of the context and its windows, noise) -> (the chunk, the past with it)."""


def random_weights(config: MotionTransformerConfig) -> Any:
    """Of the network, as a weights file has them."""
    model = abstract(lambda rngs: MotionTransformer(config, rngs=rngs))
    draw = np.random.default_rng(0)
    return jax.tree.map(
        lambda p: draw.normal(0, 0.02, p.shape).astype(p.dtype),
        nnx.to_pure_dict(nnx.state(model, nnx.Param)),
    )


def sampler_of(config: MotionTransformerConfig, weights: Any) -> MotionSampler:
    """What acts with them."""
    zeros, ones = np.zeros(config.latent, np.float32), np.ones(config.latent, np.float32)
    statistics = {"mean": zeros, "spread": ones, "deviation": ones}
    return MotionSampler(config, MelConfig(), Flow(), for_acting(config, weights), statistics)


def cached(sampler: MotionSampler, steps: int) -> tuple[Step, Any]:
    """As generation acts; and an empty past."""
    c, plan = sampler.config, sampler.plan(MotionSampling(steps=steps, audio_guidance=GUIDANCE))

    def step(past, audio, noise):
        audio = audio[:, -c.chunk - 2 * c.audio_window :]
        flight = Flight(
            z=noise,
            past=past,
            audio=audio,
            audio_known=jnp.ones(audio.shape[:2], bool),
            reference=jnp.zeros((1, c.latent)),
            reference_seen=jnp.ones(1, bool),
            direction=jnp.zeros((1, c.chunk, c.direction)),
            history_noise=jnp.zeros_like(noise),
            scales=jnp.full((1, 1, c.chunk, 1), GUIDANCE),
        )
        return sampler.next_chunk(plan, sampler.weights, flight, plan.rollout.levels(1))

    return step, sampler.empty_past(plan, 1)


def recomputed(sampler: MotionSampler, steps: int) -> tuple[Step, Any]:
    """With the whole context in every pass; and an empty past: latents, of which none exist."""
    c, rollout = sampler.config, sampler.plan(MotionSampling(steps=steps)).rollout
    positions = jnp.tile(jnp.arange(c.context), (2, 1))
    causal = chunk_causal_mask(c.context, c.chunk)[None]

    @jax.jit
    def compute(weights: Any, past: Any, audio: Array, noise: Array) -> tuple[Array, Any]:
        history, known = past
        finished, label = rollout.finished(history, jnp.zeros_like(history))
        seen = jnp.concatenate([known, jnp.ones(c.chunk, bool)])
        mask = (causal & seen) | jnp.eye(c.context, dtype=bool)
        heard = heard_audio(c, jnp.ones(audio.shape[:2], bool))

        def denoise(z: Float[Array, "1 c d"], level: Float[Array, "1 c"]) -> Array:
            output = sampler.network(weights)(
                jnp.tile(jnp.concatenate([finished, z], axis=1), (2, 1, 1)),
                jnp.tile(jnp.append(jnp.full(rollout.history, label), level), (2, 1)),
                positions,
                mask,
                jnp.tile(audio, (2, 1, 1)),
                jnp.concatenate([heard, jnp.zeros_like(heard)]),
                jnp.zeros((2, c.latent)),
                jnp.ones(2, bool),
            )[:, rollout.history :]
            return guided(output[:1], output[1:], GUIDANCE)

        chunk = follow(denoise, noise, jnp.asarray(rollout.levels(1)), rollout.flow, c.chunk)
        known = jnp.append(known[c.chunk :], jnp.ones(c.chunk, bool))[: rollout.history]
        return chunk, (jnp.concatenate([history[:, c.chunk :], chunk], axis=1), known)

    empty = jnp.zeros((1, rollout.history, c.latent)), jnp.zeros(rollout.history, bool)
    return functools.partial(compute, sampler.weights), empty


def by_torch(weights: Any, sampler: MotionSampler, steps: int) -> tuple[Step, Any]:
    """As torch acts; and an empty past. Raises ImportError where it is not installed."""
    import torch

    from benchmarks.torch_motion import Performer, with_weights

    torch.set_num_threads(os.cpu_count() or 1)
    c, rollout = sampler.config, sampler.plan(MotionSampling(steps=steps)).rollout
    network = with_weights(c, weights).to(getattr(torch, c.dtype))
    act = Performer(network, steps, GUIDANCE, rollout.history, rollout.history_level)

    def step(past, audio, noise):
        audio = torch.from_numpy(audio[:, -c.chunk - 2 * c.audio_window :])
        chunk, past = act(past, audio.to(act.dtype), torch.from_numpy(noise).to(act.dtype))
        return chunk.float().numpy(), past

    return step, act.empty()


def measure(
    config: MotionTransformerConfig, hearing: MelConfig | SpeechWindow, steps: int, chunks: int
) -> dict[str, float]:
    """Seconds of a chunk by every way, and what follows from them."""
    weights, draw = random_weights(config), np.random.default_rng(1)
    sampler = sampler_of(config, weights)
    frames = config.context + 2 * config.audio_window
    audio = draw.normal(size=(1, frames, config.audio)).astype(np.float32)
    shape = (TURNS, 1 + chunks, 1, config.chunk, config.latent)
    noise = draw.normal(size=shape).astype(np.float32)
    ways = {
        "cached": cached,
        "recomputed": recomputed,
        "torch": functools.partial(by_torch, weights),
    }
    acting = {}
    for name, way in ways.items():
        with contextlib.suppress(ImportError):
            acting[name] = way(sampler, steps)
    first: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {name: [] for name in acting}
    for turn, name in itertools.product(noise, acting):
        step, past = acting[name]
        for number, each in enumerate(turn):
            start = time.perf_counter()
            chunk, past = jax.block_until_ready(step(past, audio, each))
            if number:
                seconds[name].append(time.perf_counter() - start)
            first.setdefault(name, np.asarray(chunk))
        acting[name] = step, past
    cost = {name: float(np.median(of_way)) for name, of_way in seconds.items()}
    plan = sampler.plan(MotionSampling(steps=steps, audio_guidance=GUIDANCE))
    past = jax.tree.leaves(sampler.empty_past(plan, 1))
    heard = hearing.needed(plan.rollout.in_flight + config.audio_window)
    others = [name for name in cost if name != "cached"]
    return {
        **{f"{name}_seconds_a_chunk": value for name, value in cost.items()},
        **{f"cached_to_{name}": cost["cached"] / cost[name] for name in others},
        "real_time_factor": cost["cached"] * FRAME_RATE / config.chunk,
        "latency_seconds": heard / SAMPLE_RATE + cost["cached"],
        "past_megabytes": sum(array.nbytes for array in past) / 1e6,
        "parameters": float(sum(p.size for p in jax.tree.leaves(sampler.weights))),
        # With nothing before, all compute the same.
        "first_chunk_difference": max(
            float(np.abs(first["cached"] - first[name]).max()) for name in others
        ),
    }


def networks(
    size: str, dtype: str, chunk: int | None = None
) -> tuple[MotionTransformerConfig, MelConfig | SpeechWindow]:
    """What is measured: the network of configs/motion.py as it acts, and what it hears by.

    The full one hears by wav2vec2, in blocks; its network itself is not timed. Raises InputError
    for a chunk that leaves the context no room.
    """
    config = get_config(size)
    mel = build(MelConfig, config.mel.to_dict())
    sizes: dict[str, Any] = {"full": {}, "tiny": {"latent": 18, "audio": mel.width}}[size]
    trained = MotionTransformerConfig(**sizes, **config.motion.to_dict())
    chunk = trained.chunk if chunk is None else chunk
    if not 1 <= chunk <= trained.context // 2:
        raise InputError(f"--chunk={chunk}: use 1 to {trained.context // 2} frames")
    network = MotionTransformerConfig(**released(trained) | {"dtype": dtype, "chunk": chunk})
    return network, SpeechWindow() if size == "full" else mel


def main() -> None:
    """Print the measures of one size as JSON."""
    parser = Parser(__doc__.split("\n")[0])
    parser.add_argument("--size", default="full", choices=("full", "tiny"), help="of the network")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps of a chunk")
    parser.add_argument("--chunk", type=int, help="frames of a chunk, if not the config's")
    parser.add_argument("--chunks", type=int, default=4, help="timed in a turn, after a first one")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of it")
    chosen = parser.parse_args(sys.argv[1:])
    start_up()
    network, hearing = networks(chosen.size, chosen.dtype, chosen.chunk)
    found = measure(network, hearing, chosen.steps, chosen.chunks)
    device = jax.devices()[0]
    print(
        json.dumps(
            {
                "size": chosen.size,
                "chunk": network.chunk,
                "dtype": chosen.dtype,
                "device": device.device_kind,
                **found,
            }
        )
    )


if __name__ == "__main__":
    run(main)
