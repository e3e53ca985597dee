"""Who influences whom in the motion transformer, read off its derivatives."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models.random_weights import compiled, newly_made, with_random_weights

from xactor_jax.diffusion.noise_levels import chunk_causal_mask, doubled_mask
from xactor_jax.models.motion_transformer import MotionTransformer, MotionTransformerConfig

TOKENS, CHUNK = 12, 2
# Two layers: what must not be seen must not come round a corner either.
CONFIG = MotionTransformerConfig(latent=2, audio=3, width=8, depth=2, heads=2, feed_forward=1)
DRAW = np.random.default_rng(0)
INPUTS = types.SimpleNamespace(
    z=DRAW.normal(size=(TOKENS, 2)).astype(np.float32),
    level=DRAW.uniform(0.1, 0.9, size=TOKENS).astype(np.float32),
    audio=DRAW.normal(size=(TOKENS + 4, 3)).astype(np.float32),
    reference=DRAW.normal(size=2).astype(np.float32),
)
EVERYTHING, SILENCE = np.ones((TOKENS, TOKENS), bool), np.zeros((TOKENS, 5), bool)
ALONE = np.eye(TOKENS, dtype=bool)
WINDOW = np.ones((TOKENS, 5), bool)
# Audio begins two frames before the tokens: their own frames are those from the third on.
DISTANCE = np.arange(TOKENS + 4) - 2 - np.arange(TOKENS)[:, None]
BAND = np.abs(DISTANCE) <= 2


@pytest.fixture(scope="module")
def network():
    return with_random_weights(lambda rngs: MotionTransformer(CONFIG, rngs=rngs))


@pytest.fixture(scope="module")
def forward(network):
    """Output and how strongly tokens, levels, audio frames and the reference move each token."""

    def run(network, z, level, audio, reference, positions, mask, heard, seen):
        def output(*inputs):
            z, level, audio, reference = (x[None] for x in inputs)
            heard_ = heard[None]
            out = network(
                z, level, positions[None], mask[None], audio, heard_, reference, seen[None]
            )
            return out[0], out[0]

        derivatives, out = jax.jacrev(output, argnums=(0, 1, 2, 3), has_aux=True)(
            z, level, audio, reference
        )
        return out, derivatives

    compiled_run = compiled(run, network)

    def influences(
        mask=EVERYTHING, heard=WINDOW, seen=True, positions=None, audio=INPUTS.audio, **changed
    ):
        inputs = types.SimpleNamespace(**{**vars(INPUTS), **changed})
        positions = np.arange(TOKENS) if positions is None else positions
        out, (z, level, audio, reference) = compiled_run(
            inputs.z, inputs.level, audio, inputs.reference, positions, mask, heard, np.array(seen)
        )
        return types.SimpleNamespace(
            output=np.asarray(out),
            token=np.abs(z).max(axis=(1, 3)),
            level=np.abs(level).max(axis=1),
            audio=np.abs(audio).max(axis=(1, 3)),
            reference=np.abs(reference).max(axis=(1, 2)),
        )

    return influences


def assert_exactly(influence, expected):
    """Zero, not merely small, where nothing may pass; clearly more elsewhere."""
    assert np.all(influence[~expected] == 0)
    assert np.all(influence[expected] > 1e-6)


def test_audio_frames_are_told_apart_by_their_place(forward):
    order = np.arange(TOKENS + 4)
    order[[5, 6]] = 6, 5
    swapped = np.abs(
        forward(mask=ALONE, audio=INPUTS.audio[order]).output - forward(mask=ALONE).output
    )
    # Token 4 hears frames 4 to 8, the same ones in both: without places only rounding differs.
    assert swapped[4].max() > 1e-5


def test_chunks_are_dense_inside_and_causal_across(forward):
    got = forward(mask=np.asarray(chunk_causal_mask(TOKENS, CHUNK)))
    chunk = np.arange(TOKENS) // CHUNK
    allowed = chunk[None, :] <= chunk[:, None]
    assert_exactly(got.token, allowed)
    assert_exactly(got.level, allowed)


def test_a_noisy_chunk_sees_clean_chunks_before_it_and_not_its_own_clean_copy(forward):
    frames = TOKENS // 2
    mask = np.asarray(doubled_mask(frames, CHUNK, np.array([True]), np.array([True])))[0]
    got = forward(mask=mask, positions=np.tile(np.arange(frames), 2))
    chunk = np.arange(frames) // CHUNK
    own, other = chunk[:, None], chunk[None, :]
    for influence in (got.token, got.level):
        clean, noisy = influence[:frames], influence[frames:]
        assert_exactly(clean, np.concatenate([other <= own, np.zeros_like(other < own)], axis=1))
        assert_exactly(noisy, np.concatenate([other < own, other == own], axis=1))


def test_without_clean_history_the_noisy_half_is_chunk_causal_by_itself(forward):
    frames = TOKENS // 2
    mask = np.asarray(doubled_mask(frames, CHUNK, np.array([False]), np.array([True])))[0]
    noisy = forward(mask=mask, positions=np.tile(np.arange(frames), 2)).token[frames:]
    chunk = np.arange(frames) // CHUNK
    causal = chunk[None, :] <= chunk[:, None]
    assert_exactly(noisy, np.concatenate([np.zeros_like(causal), causal], axis=1))


def test_a_token_hears_its_window_and_nothing_else(forward):
    assert_exactly(forward(mask=ALONE).audio, BAND)
    for place in range(5):
        heard = SILENCE.copy()
        heard[:, place] = True
        assert_exactly(forward(mask=ALONE, heard=heard).audio, place - 2 == DISTANCE)


def test_both_copies_hear_the_sound_of_their_frames(forward):
    frames = TOKENS // 2
    got = forward(
        mask=ALONE, positions=np.tile(np.arange(frames), 2), audio=INPUTS.audio[: frames + 4]
    )
    assert_exactly(got.audio, np.tile(BAND[:frames, : frames + 4], (2, 1)))


def test_sound_reaches_a_chunk_through_earlier_chunks_only(forward):
    got = forward(mask=np.asarray(chunk_causal_mask(TOKENS, CHUNK))).audio
    last_of_chunk = (np.arange(TOKENS) // CHUNK + 1) * CHUNK - 1
    assert_exactly(got, np.arange(TOKENS + 4)[None] <= last_of_chunk[:, None] + 4)


def test_dropped_audio_is_not_heard(forward):
    heard, dropped = forward(), forward(heard=SILENCE)
    assert np.all(dropped.audio == 0)
    assert np.abs(heard.output - dropped.output).max() > 1e-2
    other = forward(heard=SILENCE, audio=-3 * INPUTS.audio)
    np.testing.assert_array_equal(dropped.output, other.output)


def test_a_token_that_hears_nothing_leaves_the_others_to_hear(forward):
    heard = WINDOW.copy()
    heard[3] = False
    got = forward(mask=ALONE, heard=heard)
    assert_exactly(got.audio, BAND & (np.arange(TOKENS) != 3)[:, None])
    np.testing.assert_allclose(
        np.delete(got.output, 3, axis=0),
        np.delete(forward(mask=ALONE).output, 3, axis=0),
        atol=1e-6,
    )


def test_rows_without_sound_are_rows_that_hear_none_of_it(network):
    def run(network, audio, heard):
        def twice(x):
            return jnp.stack([x, -x])

        return network(
            twice(INPUTS.z),
            jnp.tile(INPUTS.level, (2, 1)),
            np.arange(TOKENS)[None],
            EVERYTHING[None],
            audio,
            heard,
            twice(INPUTS.reference),
            np.ones(2, bool),
        )

    run, audio = compiled(run, network), INPUTS.audio[None]
    told = run(np.concatenate([audio, audio]), np.stack([WINDOW, SILENCE]))
    # fp32, summed in another order.
    np.testing.assert_allclose(run(audio, WINDOW[None]), told, atol=1e-5)


def test_a_dropped_reference_is_not_seen(forward):
    seen, dropped = forward(), forward(seen=False)
    assert np.all(seen.reference > 1e-6)
    assert np.all(dropped.reference == 0)
    other = forward(seen=False, reference=-3 * INPUTS.reference)
    np.testing.assert_array_equal(dropped.output, other.output)
    assert np.abs(seen.output - dropped.output).max() > 1e-2


def test_a_level_for_each_chunk_is_that_of_all_its_frames(network):
    def run(network, level):
        positions, heard, seen = np.arange(TOKENS)[None], WINDOW[None], np.ones(1, bool)
        inputs = (INPUTS.z[None], level, positions, EVERYTHING[None], INPUTS.audio[None])
        return network(*inputs, heard, INPUTS.reference[None], seen)

    of_chunks = INPUTS.level[None, ::CHUNK]
    of_frames = np.repeat(of_chunks, CHUNK, axis=1)
    found, expected = (compiled(run, network)(level) for level in (of_chunks, of_frames))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    moved = compiled(run, network)(np.roll(of_chunks, 1))
    assert np.abs(moved - expected).max() > 1e-3


def test_only_distances_in_time_matter(forward):
    here = forward().output
    # fp32 angles of up to 111 are known to 1e-5.
    np.testing.assert_allclose(forward(positions=np.arange(TOKENS) + 100).output, here, atol=2e-3)
    stretched = forward(positions=3 * np.arange(TOKENS)).output
    assert np.abs(stretched - here).max() > 1e-2


def acted(network):
    """Everything seen and heard."""
    return network(
        INPUTS.z[None],
        INPUTS.level[None],
        np.arange(TOKENS)[None],
        EVERYTHING[None],
        INPUTS.audio[None],
        WINDOW[None],
        INPUTS.reference[None],
        np.ones(1, bool),
    )


@pytest.mark.parametrize("shared_modulation", [False, True])
def test_every_condition_starts_without_effect_on_a_new_network(shared_modulation):
    config = dataclasses.replace(CONFIG, shared_modulation=shared_modulation)
    out = compiled(acted, newly_made(lambda rngs: MotionTransformer(config, rngs=rngs)))()
    assert out.shape == (1, TOKENS, 2)
    np.testing.assert_array_equal(out, 0)


def test_shared_modulation_is_that_of_blocks_with_equal_layers_but_for_what_they_add():
    config = dataclasses.replace(CONFIG, shared_modulation=True)
    shared = with_random_weights(lambda rngs: MotionTransformer(config, rngs=rngs))
    separate = with_random_weights(lambda rngs: MotionTransformer(CONFIG, rngs=rngs))
    weights = nnx.to_pure_dict(nnx.state(shared, nnx.Param))
    layer = weights.pop("block_modulation")
    for block in weights["blocks"].values():
        offset = block["modulation"]["offset"]
        block["modulation"] = {"kernel": layer["kernel"], "bias": layer["bias"] + offset}
    state = nnx.state(separate, nnx.Param)
    nnx.replace_by_pure_dict(state, weights)
    nnx.update(separate, state)

    # fp32, summed in another order.
    np.testing.assert_allclose(acted(shared), acted(separate), atol=1e-5)
    assert np.ptp(acted(shared)) > 0.1
