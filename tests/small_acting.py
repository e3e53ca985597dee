"""Random motion transformers that act, straight from the compiled functions and as one pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from models.random_weights import compiled, with_random_weights

from xactor_jax.acting import Acting
from xactor_jax.data.audio_features import MelConfig
from xactor_jax.diffusion.processes import Flow
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig
from xactor_jax.motion_sampler import Flight, MotionSampler, MotionSampling, for_acting

MEL = MelConfig(bands=6, hops=2)
# Two layers: the second layer's keys know of more than the first one's tokens.
SIZES = {
    "latent": 3,
    "audio": MEL.width,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "feed_forward": 1,
    "chunk": 5,
    "context": 20,
    "audio_window": 2,
}
STATISTICS = {"mean": np.zeros(3), "spread": np.ones(3), "deviation": np.ones(3)}
STATISTICS = {name: value.astype(np.float32) for name, value in STATISTICS.items()}


def make(**changes):
    """A sampler and its network, of random weights."""
    config = MotionTransformerConfig(**{**SIZES, **changes})
    network = with_random_weights(lambda rngs: MotionTransformer(config, rngs=rngs), deviation=0.3)
    weights = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    return MotionSampler(config, MEL, Flow(), for_acting(config, weights), STATISTICS), network


def features(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, MEL.width)).astype(np.float32)


FEW_STEPS = MotionSampling(steps=2)


def start(sampler, seed=0, sampling=FEW_STEPS):
    reference = np.linspace(-1, 1, 3, dtype=np.float32)[None]
    return Acting(sampler, reference, jax.random.key(seed), sampling=sampling)


def noises(sampler, chunks, dtype=np.float32):
    c = sampler.config
    return np.random.default_rng(1).normal(size=(1, chunks * c.chunk, c.latent)).astype(dtype)


def history_noise(sampler, number, dtype=np.float32):
    """What a chunk is committed with, if it is."""
    shape = (1, sampler.config.chunk, sampler.config.latent)
    return np.random.default_rng(100 + number).normal(size=shape).astype(dtype)


def flight_of(sampler, sampling, z, past, number, **changes):
    """What a chunk is acted from, all of it known."""
    c, frames = sampler.config, z.shape[1] + 2 * sampler.config.audio_window
    untold = np.zeros((1, z.shape[1], c.direction), np.float32)
    direction = changes.pop("direction", untold)
    flight = Flight(
        z=z,
        past=past,
        audio=features(frames)[None],
        audio_known=np.ones((1, frames), bool),
        reference=np.ones((1, c.latent), np.float32),
        reference_seen=np.ones(1, bool),
        direction=direction,
        history_noise=history_noise(sampler, number, z.dtype),
        scales=sampling.scales(direction),
    )
    return dataclasses.replace(flight, **changes)


def steps(sampler, chunks, sampling=FEW_STEPS, dtype=np.float32):
    """Chunk after chunk, straight from the compiled functions: (chunk, past)."""
    c, plan = sampler.config, sampler.plan(sampling)
    rollout = plan.rollout
    flying = rollout.chunks_in_flight
    noise = noises(sampler, chunks + flying, dtype)
    heard = features(noise.shape[1] + 2 * c.audio_window)
    known = np.arange(len(heard)) >= c.audio_window
    z, past = noise[:, : rollout.in_flight], sampler.empty_past(plan, 1)
    for n in range(chunks):
        part = slice(n * c.chunk, n * c.chunk + rollout.in_flight + 2 * c.audio_window)
        flight = flight_of(sampler, sampling, z, past, n, audio=heard[None, part])
        flight = dataclasses.replace(flight, audio_known=known[None, part])
        for begun in range(1, flying) if n == 0 else ():
            z = sampler.next_round(plan, sampler.weights, flight, rollout.levels(begun))
            flight = dataclasses.replace(flight, z=z)
        levels = rollout.levels(flying)
        z, past = sampler.next_chunk(plan, sampler.weights, flight, levels)
        yield np.asarray(z[:, : c.chunk]), past
        fresh = noise[:, (n + flying) * c.chunk : (n + flying + 1) * c.chunk]
        z = np.concatenate([z[:, c.chunk :], fresh], axis=1)


def reaching(sampler, frames, reach, first):
    """The mask in which a chunk sees `reach` before it; those after chunk `first` one more each."""
    chunk = np.arange(frames) // sampler.config.chunk
    apart = chunk[:, None] - chunk[None, :]
    return ((apart >= 0) & (apart <= reach + np.maximum(chunk - first, 0)[:, None]))[None]


def whole_sequence(sampler, network, frames):
    """One pass over all frames at once: (z, levels, mask, which audio is heard) -> the output."""
    c = sampler.config
    audio = features(frames + 2 * c.audio_window)[None]

    def run(network, z, levels, mask, heard):
        positions = jnp.arange(frames)[None]
        seen = jnp.ones(1, bool)
        return network(z, levels, positions, mask, audio, heard, jnp.ones((1, c.latent)), seen)

    return compiled(run, network)
