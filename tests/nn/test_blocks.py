"""Blocks of the U-Nets: formulas, what starts as the identity, and who sees whom."""

import jax.numpy as jnp
import numpy as np
import pytest
from models.random_weights import compiled, newly_made, with_random_weights
from scipy.special import erf

from xactor_jax.nn.blocks import AttentionModule, GatedFeedForward, resize, upsample

DRAW = np.random.default_rng(0)
VIDEO = DRAW.normal(size=(2, 3, 2, 2, 4)).astype(np.float32)
MOTION = DRAW.normal(size=(2, 3, 5, 6)).astype(np.float32)


def make_module(rngs, **kind):
    return AttentionModule(4, 2, 2, 1, max_frames=3, rngs=rngs, **kind)


def run(module, video, motion=None):
    return module(video, motion)


def test_the_gate_is_an_exact_gelu():
    module = with_random_weights(lambda rngs: GatedFeedForward(3, 2, rngs=rngs))
    x = DRAW.normal(size=(5, 3)).astype(np.float32)
    hidden = x @ np.asarray(module.proj.kernel[...]) + np.asarray(module.proj.bias[...])
    value, gate = hidden[:, :6], hidden[:, 6:]
    gated = value * gate * 0.5 * (1 + erf(gate / np.sqrt(2)))
    expected = gated @ np.asarray(module.out.kernel[...]) + np.asarray(module.out.bias[...])
    np.testing.assert_allclose(module(x), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [{}, {"key_width": 6}], ids=["temporal", "motion"])
def test_an_inserted_module_starts_as_the_identity(kind):
    module = newly_made(lambda rngs: make_module(rngs, **kind))
    motion = jnp.asarray(MOTION) if kind else None
    np.testing.assert_array_equal(compiled(run, module)(VIDEO, motion), VIDEO)


def changed_frames(forward, *arguments, changed):
    """Which frames of the first video differ once the last argument is changed in one frame."""
    *same, last = arguments
    other = last.copy()
    other[0, changed] += DRAW.normal(size=other.shape[2:]).astype(np.float32)
    before, after = forward(*arguments), forward(*same, other)
    np.testing.assert_array_equal(before[1], after[1])  # the other video
    return [t for t in range(3) if not np.array_equal(before[0, t], after[0, t])]


def test_motion_reaches_its_own_frame_only():
    module = with_random_weights(lambda rngs: make_module(rngs, key_width=6))
    forward = compiled(run, module)
    assert changed_frames(forward, VIDEO, MOTION, changed=1) == [1]
    swapped = compiled(lambda module, motion, video: module(video, motion), module)
    assert changed_frames(swapped, MOTION, VIDEO, changed=2) == [2]


def test_a_temporal_module_sees_the_whole_window_and_its_order():
    forward = compiled(run, with_random_weights(make_module))
    assert changed_frames(forward, VIDEO, changed=0) == [0, 1, 2]
    backwards = forward(np.ascontiguousarray(VIDEO[:, ::-1]))[:, ::-1]
    assert np.abs(forward(VIDEO) - backwards).max() > 1e-3


def test_a_window_longer_than_the_trained_one_is_refused():
    module = with_random_weights(make_module)
    with pytest.raises(ValueError, match="4 frames is over the 3"):
        module(jnp.zeros((1, 4, 2, 2, 4)))


def test_upsampling_repeats_and_resizing_interpolates_between_centres():
    x = np.arange(4.0, dtype=np.float32).reshape(1, 2, 2, 1)
    doubled = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    np.testing.assert_array_equal(upsample(x)[0, ..., 0], doubled)
    # Centres of the fine cells lie at -1/4, 1/4, 3/4, 5/4 of the coarse ones; the edge repeats.
    place = np.array([0, 0.25, 0.75, 1])
    expected = 2 * place[:, None] + place[None]
    np.testing.assert_allclose(resize(x, (4, 4))[0, ..., 0], expected, atol=1e-6)
