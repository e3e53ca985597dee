"""The renderer as one model: what its config promises of its output, and one-step rendering."""

import dataclasses
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models.random_weights import compiled, with_random_weights

from xactor_jax.diffusion.processes import Flow
from xactor_jax.models.motion_encoder import MotionEncoderConfig
from xactor_jax.models.renderer import Renderer, RendererConfig, Sampling
from xactor_jax.models.vae import PatchCodecConfig
from xactor_jax.models.video_unet import UNetConfig

CONFIG = RendererConfig(
    image_size=16,
    codec=PatchCodecConfig(factor=4, channels=2, hidden=4),
    encoder=MotionEncoderConfig(
        image_size=16,
        channels=(4, 4, 4),
        hourglass_depth=1,
        attention_width=16,
        attention_heads=2,
        feed_forward=1,
        landmark_channels=2,
        latent=6,
        box_width=4,
        tokens=2,
        token_width=4,
        norm="group",
    ),
    denoiser=UNetConfig(
        channels=(4,),
        layers=1,
        attention_levels=(True,),
        heads=2,
        groups=2,
        feed_forward=1,
        image_token=0,
        motion_token=4,
        motion_feed_forward=1,
    ),
    flow=Flow(prediction="sample"),
    stack_reference=True,
    from_reference=True,
    motion_maps=2,
)
DRAW = np.random.default_rng(0)


def draw(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


Z, PICTURE, MOTION, BOX = draw(2, 2, 4, 4, 2), draw(2, 16, 16, 3), draw(2, 2, 6), draw(2, 2, 3)
STILL = draw(2, 6)


def make(config=CONFIG):
    return with_random_weights(lambda rngs: Renderer(config, rngs=rngs))


def predict(renderer, z, motion, box, still):
    """The prediction, and that of the same weights which is no change of the reference."""
    graph, _ = nnx.split(make(dataclasses.replace(CONFIG, from_reference=False)))
    plain = nnx.merge(graph, nnx.state(renderer))
    reference = renderer.see(PICTURE, still)
    return tuple(
        each.predict(z, jnp.ones(2), reference, motion, box)[0] for each in (renderer, plain)
    )


def render(renderer, motion, scale):
    sampling = Sampling(steps=1, motion_guidance=scale)
    return renderer.render(Z, renderer.see(PICTURE, STILL), motion, BOX, sampling)


@pytest.fixture(scope="module")
def predicted():
    forward = compiled(predict, make())
    return lambda z=Z, motion=MOTION, box=BOX, still=STILL: forward(z, motion, box, still)


def test_the_output_may_be_a_change_of_the_reference(predicted):
    output, change = predicted()
    latent = compiled(lambda renderer: renderer.codec.encode(PICTURE), make())()
    np.testing.assert_allclose(output - latent[:, None], change, atol=1e-4)


def moved_down(renderer, down, motion=MOTION):
    """Predicted latents, moved pictures and frames; the flow's part of the last layer is fixed.

    So many cells everywhere, whatever comes in; the change of the latents is none.
    """
    last = renderer.denoiser.conv_out
    last.kernel[...] = jnp.zeros_like(last.kernel[...])
    last.bias[...] = jnp.array([0.0, 0.0, down, 0.0])
    reference = renderer.see(PICTURE, STILL)
    latents, moved = renderer.predict(Z, jnp.ones(2), reference, motion, BOX)
    return latents, moved, renderer.frames(latents, moved)


def warping(function):
    """The result of `function(renderer)` for one that warps and has a random codec."""
    basis = draw(48, 2)

    def run(renderer):
        renderer.codec.basis[...] = jnp.asarray(basis)
        return function(renderer)

    return compiled(run, make(dataclasses.replace(CONFIG, warps_reference=True)))()


def test_the_references_picture_may_be_moved_along_a_predicted_flow():
    def run(renderer):
        renderer.flow.kernel[...] = jnp.zeros_like(renderer.flow.kernel[...])
        border = jnp.repeat(PICTURE[:, -1:], 4, axis=1)
        expected = jnp.concatenate([PICTURE[:, 4:], border], axis=1)
        return *moved_down(renderer, 1.0), expected, renderer.codec.encode(expected)

    # A cell is four pixels.
    latents, moved, frames, expected, encoded = warping(run)
    np.testing.assert_allclose(moved, np.repeat(expected[:, None], 2, axis=1), atol=1e-5)
    np.testing.assert_allclose(latents, np.repeat(encoded[:, None], 2, axis=1), atol=1e-3)
    # Two of 48 components are left of a patch in its latent: without a change, none is lost.
    np.testing.assert_allclose(frames, moved, atol=1e-4)


def test_the_motion_moves_the_reference_by_itself():
    moved = warping(lambda renderer: moved_down(renderer, 0.0, MOTION + 1)[1])
    unmoved = warping(lambda renderer: moved_down(renderer, 0.0)[1])
    assert np.abs(moved - unmoved).max() > 0.1


def test_only_a_changed_reference_is_moved():
    with pytest.raises(ValueError, match="warps_reference needs from_reference"):
        RendererConfig(warps_reference=True)


@pytest.mark.parametrize("name", ["z", "motion", "box"])
def test_frames_follow_their_own_motion_and_box(predicted, name):
    before = predicted()[0]
    changed = {"z": Z, "motion": MOTION, "box": BOX}[name].copy()
    changed[0, 1] += draw(*changed.shape[2:])
    after = predicted(**{name: changed})[0]
    assert np.abs(after[0, 1] - before[0, 1]).max() > 1e-3
    np.testing.assert_array_equal(after[0, 0], before[0, 0])
    np.testing.assert_array_equal(after[1], before[1])


def test_the_network_is_told_the_references_own_motion(predicted):
    before, still = predicted()[0], STILL.copy()
    still[1] += draw(6)
    after = predicted(still=still)[0]
    assert np.abs(after[1] - before[1]).max() > 1e-3
    np.testing.assert_array_equal(after[0], before[0])


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_one_step_of_rendering_is_the_guided_prediction_from_noise(predicted, scale):
    frames = compiled(partial(render, scale=scale), make())(MOTION)
    # Guidance goes on from the reference's own motion.
    moved = predicted()[0]
    still = predicted(motion=np.repeat(STILL[:, None], 2, axis=1))[0]
    latents = still + scale * (moved - still)
    decode = compiled(lambda renderer, latents: renderer.frames(latents, None), make())
    np.testing.assert_allclose(frames, decode(latents), atol=1e-3)


def test_steps_go_from_noise_to_the_sample_that_the_last_one_sees():
    """Euler's method by hand: z goes a third of the way to the sample, then half, then all."""

    def run(renderer):
        reference = renderer.see(PICTURE, STILL)
        z = Z
        for level, following in ((1.0, 2 / 3), (2 / 3, 1 / 3), (1 / 3, 0.0)):
            sample, _ = renderer.predict(z, jnp.full(2, level), reference, MOTION, BOX)
            z = sample + following / level * (z - sample)
        sampling = Sampling(steps=3)
        return renderer.frames(z, None), renderer.render(Z, reference, MOTION, BOX, sampling)

    expected, frames = compiled(run, make())()
    np.testing.assert_allclose(frames, expected, atol=1e-3)
