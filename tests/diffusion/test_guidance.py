"""Guidance: one call for both halves, the unconditional one without all three conditions."""

import jax
import jax.numpy as jnp
import numpy as np

from xactor_jax.diffusion.guidance import Conditions, both, guided, guided_by_each, guided_output

DRAW = np.random.default_rng(0)


def drawn(*shape):
    return jnp.asarray(DRAW.normal(size=shape), jnp.float32)


CONDITIONS = Conditions(
    motion={"tokens": drawn(2, 5, 3, 4), "box": drawn(2, 5, 3)},
    reference=[drawn(2, 6, 8), drawn(2, 7, 4)],
    reference_seen=jnp.asarray([True, True]),
    image_token=drawn(2, 1, 8),
)
STILL = {"tokens": drawn(2, 3, 4), "box": drawn(2, 3)}


def test_the_unconditional_half_lacks_reference_image_token_and_driving_motion():
    null = CONDITIONS.null(STILL)
    assert not np.any(null.reference_seen)
    np.testing.assert_array_equal(null.image_token, np.zeros((2, 1, 8)))
    for name, still in STILL.items():
        assert null.motion[name].shape == CONDITIONS.motion[name].shape
        for frame in range(5):
            np.testing.assert_array_equal(null.motion[name][:, frame], still)


def test_without_an_image_token_there_is_none_to_take_away():
    plain = Conditions(motion=drawn(1, 5, 3), reference_seen=jnp.ones(1, bool))
    assert both(plain.null(drawn(1, 3)), plain).image_token is None


def test_a_window_takes_its_frames_motion_and_nothing_else():
    frames = np.array([4, 0, 1])
    window = CONDITIONS.at(frames)
    for name, motion in CONDITIONS.motion.items():
        np.testing.assert_array_equal(window.motion[name], np.asarray(motion)[:, frames])
    np.testing.assert_array_equal(window.image_token, CONDITIONS.image_token)
    assert all(a is b for a, b in zip(window.reference, CONDITIONS.reference, strict=True))


def test_one_call_with_the_unconditional_half_first():
    calls = []

    def denoise(z, level, conditions):
        calls.append((z, level, conditions))
        return jnp.arange(4.0, dtype=jnp.bfloat16)[:, None] + jnp.zeros((4, 5), jnp.bfloat16)

    z = drawn(2, 5)
    halves = both(CONDITIONS.null(STILL), CONDITIONS)
    output = guided_output(denoise, z, jnp.float32(0.3), halves, 2.5)
    # Unconditional outputs 0 and 1, conditional ones 2 and 3.
    np.testing.assert_array_equal(output, np.repeat([[5.0], [6.0]], 5, axis=1))
    assert output.dtype == jnp.float32
    ((given, level, conditions),) = calls
    np.testing.assert_array_equal(given, np.concatenate([z, z]))
    np.testing.assert_allclose(level, np.full(4, 0.3))
    for got, null, own in zip(
        *(jax.tree.leaves(each) for each in (conditions, CONDITIONS.null(STILL), CONDITIONS)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, np.concatenate([null, own]))


def test_several_guidances_add_up_and_one_is_the_usual():
    full, without, other = (drawn(2, 3) for _ in range(3))
    np.testing.assert_allclose(
        guided_by_each(jnp.concatenate([full, without]), jnp.asarray([2.5])),
        guided(full, without, 2.5),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        guided_by_each(jnp.concatenate([full, without, other]), jnp.asarray([2.5, 0.0])),
        2.5 * full - 1.5 * without + (other - full),
        atol=1e-5,
    )
    np.testing.assert_array_equal(guided_by_each(full, jnp.zeros(0)), full)
