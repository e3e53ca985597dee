"""Acting chunk by chunk with kept keys and values, from sound that arrives in any pieces."""

import gc

import jax
import numpy as np
import pytest
from small_acting import FEW_STEPS, MEL, features, make, start
from small_models import quick_compilation as quick_compilation

from xactor_jax.acting import Acting, LiveActing, perform
from xactor_jax.data.audio_features import audio_features, recording_gain
from xactor_jax.data.direction import WIDTH, Told, free, tell
from xactor_jax.models.motion_cache import KeyValueCache
from xactor_jax.motion_sampler import MotionSampling
from xactor_jax.timeline import Entry, Timeline


@pytest.fixture(scope="module")
def sampler():
    return make()[0]


@pytest.fixture(scope="module")
def directed():
    return make(direction=WIDTH)[0]


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
    whole = start(sampler).act(audio_features(audio, frames, MEL))
    live = LiveActing(start(sampler), recording_gain(audio))
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


TOLD = Timeline((Entry(12, 30, {"emotion": np.float32([0.8, 0, 0, 0]), "yaw": 0.3}),))


def told(sampler, direction, **changes):
    reference = np.linspace(-1, 1, 3, dtype=np.float32)[None]
    sampling = MotionSampling(steps=2, **changes)
    return Acting(sampler, reference, jax.random.key(0), sampling=sampling, direction=direction)


def test_directions_act_on_their_own_frames_and_after(directed):
    heard = features(40)
    free, acted = (told(directed, each).act(heard) for each in (Timeline(), TOLD))
    np.testing.assert_array_equal(told(directed, None).act(heard), free)
    first = 12 // directed.config.chunk * directed.config.chunk
    np.testing.assert_array_equal(acted[:first], free[:first])
    assert np.abs(acted[first:30] - free[first:30]).min(axis=1).max() > 1e-3
    live = told(directed, TOLD)
    parts = [live.push(piece[None])[0] for piece in pieces(heard, (3, 17, 1))]
    np.testing.assert_array_equal(np.concatenate([*parts, live.finish()[0]]), acted)


def test_each_of_a_batch_can_be_told_its_own(directed):
    heard, rows = np.stack([features(23)] * 2), np.stack([free(20), free(20)])
    tell(rows[1], "yaw", 0.3)
    latents = perform_told(directed, heard, Told(rows))
    np.testing.assert_array_equal(latents[0], perform_told(directed, heard, Told(rows[0]))[0])
    tell(rows[0], "yaw", 0.3)
    # In a batch noise differs from place to place: the second of both is compared.
    np.testing.assert_array_equal(latents[1], perform_told(directed, heard, Told(rows[1]))[1])
    assert np.abs(latents[1] - perform_told(directed, heard, None)[1]).max() > 1e-3


def perform_told(sampler, heard, direction):
    reference = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    sampling = MotionSampling(steps=2)
    return perform(
        sampler, heard, reference, jax.random.key(0), sampling=sampling, direction=direction
    )


def test_emotion_guidance_is_for_told_emotions_alone(directed):
    heard, pose = features(20), Timeline((Entry(0, 99, {"yaw": 0.3}),))
    for direction, changes in ((None, False), (pose, False), (TOLD, True)):
        plain, guided = (
            told(directed, direction, emotion_guidance=scale).act(heard) for scale in (1.0, 3.0)
        )
        assert (np.abs(guided - plain).max() > 1e-3) == changes


def test_guidance_ends_with_the_telling(directed):
    """What follows is then what follows the same past without guidance."""
    heard, chunk = features(25)[None], directed.config.chunk
    timeline = Timeline((Entry(0, chunk, {"emotion": np.float32([0.8, 0, 0, 0])}),))

    def begun(**changes):
        performer = told(directed, timeline, **changes)
        performer.push(heard[:, : chunk + directed.config.audio_window])
        assert performer.count == 1
        return performer

    lasting = begun(emotion_guidance=3.0, guide_remembered=True)
    ending = begun(emotion_guidance=3.0)
    unguided = begun(emotion_guidance=1.0)
    np.testing.assert_array_equal(ending.past.keys, lasting.past.keys)
    rows = [ending.plan.branches.index(name) for name in unguided.plan.branches]
    past = ending.past.keys[:, rows], ending.past.values[:, rows], ending.past.known
    unguided.past = KeyValueCache(*past)
    after, without, guided = (
        performer.push(heard[:, chunk + directed.config.audio_window :])
        for performer in (ending, unguided, lasting)
    )
    # Batches of three branches and of two: sums of another order, in fp32.
    np.testing.assert_allclose(after, without, atol=1e-5)
    assert np.abs(guided - after).max() > 1e-3


def test_who_cannot_be_told_says_so(sampler):
    with pytest.raises(ValueError, match="not trained to be told"):
        told(sampler, TOLD)


def test_silence_alone_and_nothing_at_all_end(sampler):
    assert LiveActing(start(sampler), 1.0).finish().shape == (0, 3)
    assert start(sampler).finish().shape == (1, 0, 3)
    live = LiveActing(start(sampler), 1.0)
    assert len(live.push(np.zeros(1, np.float32))) == 0
    assert live.finish().shape == (1, 3)


def test_nothing_is_heard_after_the_end(sampler):
    live = LiveActing(start(sampler), 1.0)
    live.push(speech(0.3))
    live.finish()
    for again in (live.finish, lambda: live.push(speech(0.3))):
        with pytest.raises(ValueError, match="this performance is finished: begin another"):
            again()


def test_a_batch_acts_as_each_alone(sampler):
    heard = np.stack([features(12, seed=0), features(12, seed=1)])
    reference = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    acting = Acting(sampler, reference, jax.random.key(0), sampling=FEW_STEPS, batch=2)
    together = np.concatenate([acting.push(heard), acting.finish()], axis=1)
    assert together.shape == (2, 12, 3)
    swapped = Acting(sampler, reference, jax.random.key(0), sampling=FEW_STEPS, batch=2)
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
        Acting(sampler, None, jax.random.key(0), sampling=FEW_STEPS),
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
