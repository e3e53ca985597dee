"""Acting chunk by chunk with kept keys and values, from sound that arrives in any pieces."""

import dataclasses
import gc
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models.random_weights import compiled, with_random_weights
from small_models import quick_compilation as quick_compilation

from xactor_jax.acting import Flight, LiveActing, MotionSampler, MotionSampling
from xactor_jax.data.audio_features import MelConfig, audio_features, recording_gain
from xactor_jax.diffusion.processes import Flow
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig

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
    return MotionSampler(config, MEL, Flow(), weights, STATISTICS), network


@pytest.fixture(scope="module")
def sampler():
    return make()[0]


def features(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, MEL.width)).astype(np.float32)


FEW_STEPS = MotionSampling(steps=2)


def start(sampler, seed=0, sampling=FEW_STEPS):
    reference = np.linspace(-1, 1, 3, dtype=np.float32)[None]
    return sampler.start(reference, jax.random.key(seed), sampling=sampling)


def noises(sampler, chunks, dtype=np.float32):
    c = sampler.config
    return np.random.default_rng(1).normal(size=(1, chunks * c.chunk, c.latent)).astype(dtype)


def steps(sampler, chunks, sampling=FEW_STEPS, dtype=np.float32):
    """Chunk after chunk, straight from the compiled functions: (chunk, past)."""
    c, rollout = sampler.config, sampler.rollout(sampling)
    flying = rollout.chunks_in_flight
    noise = noises(sampler, chunks + flying, dtype)
    heard = features(noise.shape[1] + 2 * c.audio_window)
    known = np.arange(len(heard)) >= c.audio_window
    z, past = noise[:, : rollout.in_flight], sampler.empty_past(rollout, 1)
    for n in range(chunks):
        part = slice(n * c.chunk, n * c.chunk + rollout.in_flight + 2 * c.audio_window)
        flight = Flight(
            z=z,
            past=past,
            audio=heard[None, part],
            audio_known=known[None, part],
            reference=np.ones((1, c.latent), np.float32),
            reference_seen=np.ones(1, bool),
            audio_guidance=np.float32(2.0),
        )
        for begun in range(1, flying) if n == 0 else ():
            z = sampler.next_round(rollout, sampler.weights, flight, rollout.levels(begun))
            flight = dataclasses.replace(flight, z=z)
        levels = rollout.levels(flying)
        z, past = sampler.next_chunk(rollout, sampler.weights, flight, levels)
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


def attention_in_double(query, key, value, bias, mask):
    """jax.nn.dot_product_attention, whose softmax is in single precision whatever it is given."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    scores = scores if bias is None else scores + bias
    weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


# Levels of the chunks in flight at the start of every sweep, until they are at the last.
ALONE = [[1.0], [0.5], [0.0]]
PYRAMID = [[0.5, 1.0], [0.25, 0.75], [0.0, 0.5]]


@pytest.mark.parametrize("rounds", [ALONE, PYRAMID])
def test_kept_keys_and_values_are_those_of_the_whole_sequence(monkeypatch, rounds):
    """In double precision, over twice the context: the whole performance, both branches of it."""
    monkeypatch.setattr(jax.nn, "dot_product_attention", attention_in_double)
    with jax.enable_x64(True):
        sampler, network = make(dtype="float64")
        c, count, flying = sampler.config, 8, len(rounds[0])
        sampling = MotionSampling(steps=2 * flying, chunks_in_flight=flying)
        tokens = noises(sampler, count + flying, np.float64)
        frames, reach = tokens.shape[1], c.context // c.chunk - flying
        forward = whole_sequence(sampler, network, frames)
        place = np.arange(frames + 2 * c.audio_window) - c.audio_window
        near = np.abs(np.arange(frames)[:, None] - place) <= c.audio_window
        heard, levels = (near & (place >= 0))[None], np.ones((1, frames))

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
            for before, after in itertools.pairwise(rounds):
                moved = sweep(n, before, after)
            part = slice(n * c.chunk, (n + 1) * c.chunk)
            assert chunk.dtype == np.float64
            np.testing.assert_allclose(chunk, tokens[:, part], rtol=0, atol=1e-10)
            tokens[:, part], levels[:, part] = 0.98 * tokens[:, part], 0.02
        assert moved > 1e-2
        # Beyond the context there are other sums to compare with, and they differ.
        near, far = (
            forward(tokens, levels, reaching(sampler, frames, limit, count), heard)
            for limit in (reach, count)
        )
        assert np.abs(near - far).max() > 1e-4


def test_what_is_finished_never_changes(sampler):
    chunk, before = sampler.config.chunk, sampler.empty_past(sampler.rollout(FEW_STEPS), 1)
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


def test_until_it_is_full_a_longer_context_changes_nothing(sampler):
    long = make(context=40)[0]
    acted = [start(each).act(features(20)) for each in (sampler, long)]
    # The same sums at other (relative) positions, in fp32.
    np.testing.assert_allclose(acted[0], acted[1], atol=1e-4)
    acted = [start(each).act(features(40)) for each in (sampler, long)]
    assert np.abs(acted[0] - acted[1]).max() > 1e-3


FLYING = MotionSampling(steps=4, chunks_in_flight=2)


@pytest.mark.parametrize("sampling", [FEW_STEPS, FLYING])
@pytest.mark.parametrize("sizes", [(1,), (7,), (3, 17, 1, 0), (33,)])
def test_features_in_pieces_are_acted_as_the_whole(sampler, sizes, sampling):
    heard = features(33)  # longer than the context, and no whole number of chunks
    acting, parts = start(sampler, sampling=sampling), []
    whole = start(sampler, sampling=sampling).act(heard)
    assert whole.shape == (33, 3) and whole.dtype == np.float32
    for piece in pieces(heard, sizes):
        parts.append(acting.push(piece[None])[0])
    parts.append(acting.finish()[0])
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def pieces(values, sizes):
    """The values cut into pieces whose sizes come round and round."""
    first = n = 0
    while first < len(values):
        yield values[first : first + sizes[n % len(sizes)]]
        first, n = first + sizes[n % len(sizes)], n + 1


def speech(seconds, seed=0):
    """Noise in syllables."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.2 * noise * np.clip(np.sin(25 * time), 0.01, 1)).astype(np.float32)


@pytest.mark.parametrize("sizes", [(37, 211), (640,), (16_000, 1), (100_000,)])
def test_a_live_voice_is_acted_as_its_recording(sampler, sizes):
    audio = speech(1.61)
    frames = 41  # the last of 640 samples is not full
    gain = recording_gain(np.pad(audio, (0, frames * 640 - len(audio))))
    whole = start(sampler).act(audio_features(audio, frames, MEL))
    live = LiveActing(start(sampler), gain)
    parts = [live.push(piece) for piece in pieces(audio, sizes)]
    np.testing.assert_array_equal(np.concatenate([*parts, live.finish()]), whole)


@pytest.mark.parametrize(("sampling", "frames"), [(FEW_STEPS, 2), (FLYING, 7)])
def test_the_look_ahead_is_what_it_says(sampler, sampling, frames):
    audio, live = speech(1.0), LiveActing(start(sampler, sampling=sampling), 1.0)
    # So many frames, and what half a window of 512 samples reaches beyond the last hop of 320.
    assert live.look_ahead == pytest.approx(frames * 0.04 - 64 / 16_000)
    first = round(live.latency * 16_000)
    assert len(live.push(audio[: first - 1])) == 0
    assert len(live.push(audio[first - 1 : first])) == sampler.config.chunk
    second = first + 5 * 640
    assert len(live.push(audio[first : second - 1])) == 0
    assert len(live.push(audio[second - 1 : second])) == sampler.config.chunk


def test_silence_alone_and_nothing_at_all_end(sampler):
    assert LiveActing(start(sampler), 1.0).finish().shape == (0, 3)
    assert start(sampler).finish().shape == (1, 0, 3)
    live = LiveActing(start(sampler), 1.0)
    assert len(live.push(np.zeros(1, np.float32))) == 0
    assert live.finish().shape == (1, 3)


def test_a_batch_acts_as_each_alone(sampler):
    heard = np.stack([features(12, seed=0), features(12, seed=1)])
    reference = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    acting = sampler.start(reference, jax.random.key(0), sampling=FEW_STEPS, batch=2)
    together = np.concatenate([acting.push(heard), acting.finish()], axis=1)
    assert together.shape == (2, 12, 3)
    swapped = sampler.start(reference, jax.random.key(0), sampling=FEW_STEPS, batch=2)
    changed = np.concatenate([swapped.push(heard[[0, 0]]), swapped.finish()], axis=1)
    np.testing.assert_array_equal(changed[0], together[0])
    assert np.abs(changed[1] - together[1]).max() > 1e-3


def test_chunks_come_as_they_are_made(sampler, monkeypatch):
    made, next_chunk = [], type(sampler).next_chunk

    def counted(*arguments):
        made.append(None)
        return next_chunk(*arguments)

    monkeypatch.setattr(type(sampler), "next_chunk", counted)
    for n, chunk in enumerate(start(sampler).chunks(features(100))):
        assert len(made) == n + 1
        assert chunk.shape == (1, sampler.config.chunk, sampler.config.latent)


def test_sound_to_come_is_heard_one_window_ahead(sampler):
    c = sampler.config
    heard, later = features(30), np.concatenate([features(30)[:17], features(30, seed=1)[17:]])
    acted, changed = (start(sampler).act(sound) for sound in (heard, later))
    # The last frame whose chunk hears nothing from frame 17 on.
    same = (17 - c.audio_window) // c.chunk * c.chunk
    np.testing.assert_array_equal(changed[:same], acted[:same])
    assert (changed[same : same + c.chunk] != acted[same : same + c.chunk]).any()


def test_seed_portrait_and_guidance_matter(sampler):
    heard = features(10)
    acted = start(sampler).act(heard)
    np.testing.assert_array_equal(start(sampler).act(heard), acted)
    others = (
        start(sampler, seed=1),
        start(sampler, sampling=MotionSampling(steps=2, audio_guidance=1.0)),
        sampler.start(None, jax.random.key(0), sampling=FEW_STEPS),
    )
    for other in others:
        assert np.abs(other.act(heard) - acted).max() > 1e-4


def test_without_guidance_of_the_audio_there_is_no_audio_in_the_past_either(sampler):
    acted = [
        start(sampler, sampling=MotionSampling(steps=2, audio_guidance=0.0)).act(features(40, seed))
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(acted[0], acted[1], atol=1e-6)


def test_nothing_is_compiled_and_nothing_grows_while_a_voice_streams(sampler, caplog):
    live, c = LiveActing(start(sampler), 1.0), sampler.config
    voice = pieces(speech(12.0), (333, 4000, 1, 640, 12_345))
    while live.acting.count < 5:  # the first chunk compiles; the context fills
        live.push(next(voice))
    compilations = type(sampler).next_chunk._cache_size()
    gc.collect()
    arrays = sum(array.nbytes for array in jax.live_arrays())
    with jax.log_compiles(True):
        caplog.clear()
        for piece in voice:
            live.push(piece)
            assert live.acting.audio.shape[1] < c.chunk + 2 * c.audio_window
            assert len(live.features._samples) < 640 + 512
        assert live.acting.count > 55
        assert sum(array.nbytes for array in jax.live_arrays()) <= arrays
        live.finish()
        assert not [record for record in caplog.records if "ompil" in record.message]
        jax.jit(lambda x: x + 1)(np.float32(1))
        assert [record for record in caplog.records if "ompil" in record.message]  # had there been
    assert type(sampler).next_chunk._cache_size() == compilations
