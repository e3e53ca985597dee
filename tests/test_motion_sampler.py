"""What chunks are acted from: the past that is kept, and what is hidden to guide them."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.random_weights import compiled
from small_acting import (
    FEW_STEPS,
    features,
    flight_of,
    history_noise,
    make,
    noises,
    reaching,
    start,
    steps,
    whole_sequence,
)
from small_models import quick_compilation as quick_compilation

from xactor_jax.data.direction import ALL_OF, WIDTH
from xactor_jax.diffusion.level_matrices import autoregressive, constant_labels, ramp_labels
from xactor_jax.models.motion_cache import KeyValueCache
from xactor_jax.motion_sampler import MotionSampling


@pytest.fixture(scope="module")
def sampler():
    return make()[0]


# Levels of the chunks in flight at the start of every sweep, until they are at the last.
ALONE = [[1.0], [0.5], [0.0]]
PYRAMID = [[0.5, 1.0], [0.25, 0.75], [0.0, 0.5]]


@pytest.mark.parametrize(
    ("rounds", "commit", "shared_modulation"),
    [
        (ALONE, "scaled", False),
        (PYRAMID, "scaled", True),
        (ALONE, "noised", True),
        (ALONE, "kept", False),
        (PYRAMID, "kept", False),
    ],
)
def test_kept_keys_and_values_are_those_of_the_whole_sequence(rounds, commit, shared_modulation):
    """In double precision, over twice the context: the whole performance, both branches of it."""
    with jax.enable_x64(True):
        sampler, network = make(dtype="float64", shared_modulation=shared_modulation)
        c, count, flying = sampler.config, 8, len(rounds[0])
        sampling = MotionSampling(steps=2 * flying, chunks_in_flight=flying, commit=commit)
        tokens = noises(sampler, count + flying, np.float64)
        frames, reach = tokens.shape[1], c.context // c.chunk - flying
        forward = whole_sequence(sampler, network, frames)
        window = np.arange(-c.audio_window, c.audio_window + 1)
        heard, levels = (np.arange(frames)[:, None] + window >= 0)[None], np.ones((1, frames))

        def sweep(first, before, after):
            mask = reaching(sampler, frames, reach, first)
            for a, level in enumerate(before):
                levels[:, (first + a) * c.chunk : (first + a + 1) * c.chunk] = level
            with_audio, without = (
                np.asarray(forward(tokens, levels, mask, each))
                for each in (heard, np.zeros_like(heard))
            )
            for a, (level, following) in enumerate(zip(before, after, strict=True)):
                part = slice((first + a) * c.chunk, (first + a + 1) * c.chunk)
                guided = without[:, part] + 2.0 * (with_audio - without)[:, part]
                tokens[:, part] -= (level - following) * guided
            return np.abs(with_audio - without).max()

        if flying == 2:  # the first chunk begins alone
            sweep(0, [1.0, 1.0], [0.75, 1.0])
            sweep(0, [0.75, 1.0], [0.5, 1.0])
        for n, (chunk, _) in enumerate(steps(sampler, count, sampling, np.float64)):
            part = slice(n * c.chunk, (n + 1) * c.chunk)
            for before, after in itertools.pairwise(rounds):
                last = tokens[:, part].copy(), before[0]
                moved = sweep(n, before, after)
            assert chunk.dtype == np.float64
            np.testing.assert_allclose(chunk, tokens[:, part], rtol=0, atol=1e-10)
            seen = 0.98 * tokens[:, part], 0.02
            if commit == "noised":
                seen = seen[0] + 0.02 * history_noise(sampler, n, np.float64), 0.02
            tokens[:, part], levels[:, part] = last if commit == "kept" else seen
        assert moved > 1e-2
        # Beyond the context there are other sums to compare with, and they differ.
        near, far = (
            forward(tokens, levels, reaching(sampler, frames, limit, count), heard)
            for limit in (reach, count)
        )
        assert np.abs(near - far).max() > 1e-4


@pytest.mark.parametrize("commit", ["scaled", "noised"])
def test_a_level_matrix_without_a_cache_makes_the_same_chunks(sampler, commit):
    c, sampling = sampler.config, MotionSampling(steps=2, commit=commit)
    plan = sampler.plan(sampling)
    flight = flight_of(
        sampler,
        sampling,
        noises(sampler, 4)[:, :15],
        KeyValueCache.empty(c, 2, 0),
        0,
        # As `steps` hears: nothing before the start.
        audio=features(5 * c.chunk + 2 * c.audio_window)[None, :19],
        audio_known=np.arange(19)[None] >= c.audio_window,
    )
    added = [history_noise(sampler, n, np.float32) for n in range(3)]
    flight = dataclasses.replace(flight, history_noise=np.concatenate(added, axis=1))
    levels = autoregressive(3, 2)
    together, ramped = (
        sampler.next_round(plan, sampler.weights, flight, levels, label(levels, 0.02))
        for label in (constant_labels, ramp_labels)
    )
    one_by_one = np.concatenate([chunk for chunk, _ in steps(sampler, 3, sampling)], axis=1)
    # The same sums at other (relative) positions, in fp32.
    np.testing.assert_allclose(together, one_by_one, atol=1e-4)
    np.testing.assert_array_equal(ramped[:, :5], together[:, :5])
    assert np.abs(ramped[:, 5:] - together[:, 5:]).max() > 1e-4


def test_what_is_finished_never_changes(sampler):
    chunk, before = sampler.config.chunk, sampler.empty_past(sampler.plan(FEW_STEPS), 1)
    shape = before.keys.shape
    for n, (_, after) in enumerate(steps(sampler, 8)):
        assert after.keys.shape == after.values.shape == shape
        np.testing.assert_array_equal(after.keys[:, :, :-chunk], before.keys[:, :, chunk:])
        np.testing.assert_array_equal(after.values[:, :, :-chunk], before.values[:, :, chunk:])
        known = np.arange(shape[2]) >= shape[2] - (n + 1) * chunk
        np.testing.assert_array_equal(after.known, known)
        # The branch with the audio is one, that without it another.
        assert np.abs(after.keys[1, 0, -chunk:] - after.keys[1, 1, -chunk:]).max() > 1e-3
        before = after


def test_chunks_in_flight_that_do_not_fit_are_named(sampler):
    with pytest.raises(ValueError, match="10 steps are not shared evenly by 3 chunks in flight"):
        start(sampler, sampling=MotionSampling(steps=10, chunks_in_flight=3))
    with pytest.raises(ValueError, match="a context of 20 frames has no room for 4 chunks of 5"):
        start(sampler, sampling=MotionSampling(steps=8, chunks_in_flight=4))


def one_step(sampler, sampling, past=None, **changes):
    """A chunk after one step, and what is kept of the past with it."""
    plan = sampler.plan(sampling)
    past = sampler.empty_past(plan, 1) if past is None else past
    z = noises(sampler, 1)
    flight = flight_of(sampler, sampling, z, past, 0, **changes)
    return sampler.next_chunk(plan, sampler.weights, flight, plan.rollout.levels(1))


def filled(sampler, sampling):
    """The past after two given chunks: at level 0 nothing moves them, and they are kept."""
    plan, finished = sampler.plan(sampling), noises(sampler, 2)
    past = sampler.empty_past(plan, 1)
    for n in range(2):
        z = finished[:, n * sampler.config.chunk :][:, : sampler.config.chunk]
        flight = flight_of(sampler, sampling, z, past, n)
        same, past = sampler.next_chunk(plan, sampler.weights, flight, np.zeros((2, 1), np.float32))
        np.testing.assert_array_equal(same, z)
    return past


def test_without_any_history_guided_chunks_are_those_of_a_beginning(sampler):
    hidden = MotionSampling(steps=1, audio_guidance=1.0, history_guidance=0.0)
    plain = dataclasses.replace(hidden, history_guidance=1.0)
    chunk, _ = one_step(sampler, hidden, filled(sampler, hidden))
    first, _ = one_step(sampler, plain)
    later, _ = one_step(sampler, plain, filled(sampler, plain))
    # The same sums at other (relative) positions, in fp32.
    np.testing.assert_allclose(chunk, first, atol=1e-5)
    assert np.abs(later - first).max() > 1e-3


@pytest.mark.parametrize("told", [True, False])
def test_guidances_add_up(told):
    """One step of the flow is linear in the network's output, and that in every scale."""
    sampler = make(direction=WIDTH)[0]
    direction = np.zeros((1, 5, WIDTH), np.float32)
    direction[..., ALL_OF["emotion"]] = float(told)
    direction[..., ALL_OF["yaw"]] = 1.0

    def chunk(**scales):
        scales = {"audio_guidance": 1.0, **scales}
        sampling = MotionSampling(steps=1, **scales)
        past = filled(sampler, sampling)
        return np.asarray(one_step(sampler, sampling, past, direction=direction)[0])

    plain = chunk()
    alone = {
        name: chunk(**{name: 2.5}) - plain
        for name in ("audio_guidance", "emotion_guidance", "history_guidance")
    }
    together = chunk(**dict.fromkeys(alone, 2.5))
    np.testing.assert_allclose(together - plain, sum(alone.values()), atol=2e-5)
    moved = {name: np.abs(change).max() > 1e-3 for name, change in alone.items()}
    expected = {"audio_guidance": True, "emotion_guidance": told, "history_guidance": True}
    assert moved == expected


def test_a_sink_keeps_the_first_frames_where_they_are():
    """One layer, whose keys and values are of their own tokens alone, against a plain pass."""
    sampler, network = make(depth=1)
    c = sampler.config
    sampling = MotionSampling(steps=1, audio_guidance=1.0, sink=5)
    acted = list(steps(sampler, 7, sampling))
    chunks = [chunk for chunk, _ in acted]
    # The history of 15 frames: the first chunk and the newest two.
    history = 0.98 * np.concatenate([chunks[0], *chunks[4:6]], axis=1)
    noise = noises(sampler, 8)[:, 6 * c.chunk : 7 * c.chunk]
    heard = features(8 * c.chunk + 2 * c.audio_window)[None, 6 * c.chunk :]
    frames = np.arange(c.context)
    audio = np.concatenate([np.zeros((1, 15, c.audio)), heard[:, : c.chunk + 4]], axis=1)
    audible = np.repeat((frames >= 15)[None, :, None], 2 * c.audio_window + 1, axis=2)
    levels = np.repeat([[0.02, 1.0]], [15, 5], axis=1)
    run = compiled(
        lambda network: network(
            jnp.concatenate([history, noise], axis=1),
            levels,
            frames[None],
            frames[None, None, :] // c.chunk <= frames[None, :, None] // c.chunk,
            audio,
            audible,
            jnp.ones((1, c.latent)),
            jnp.ones(1, bool),
        ),
        network,
    )
    np.testing.assert_allclose(chunks[6], noise - np.asarray(run())[:, 15:], atol=1e-5)
    forgetful = list(steps(sampler, 7, dataclasses.replace(sampling, sink=0)))
    np.testing.assert_array_equal(forgetful[3][0], chunks[3])  # the context was not yet full
    assert np.abs(forgetful[6][0] - chunks[6]).max() > 1e-4


def test_what_cannot_be_sampled_is_named(sampler):
    for changes, message in (
        ({"commit": "frozen"}, "commit 'frozen': use one of scaled, noised, kept"),
        ({"sink": 15}, "a sink of 15 frames leaves no room for newer ones: use 0 to 10"),
        ({"emotion_guidance": 2.0}, "not trained to be told an emotion"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler.plan(MotionSampling(**changes))
