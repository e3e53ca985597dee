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


Z, REFERENCE, MOTION, BOX = draw(2, 2, 4, 4, 2), draw(2, 4, 4, 2), draw(2, 2, 6), draw(2, 2, 3)
STILL = draw(2, 6)


def make(config=CONFIG):
    return with_random_weights(lambda rngs: Renderer(config, rngs=rngs))


def predict(renderer, z, motion, box, still):
    """The prediction, and that of the same weights which is no change of the reference."""
    graph, _ = nnx.split(make(dataclasses.replace(CONFIG, from_reference=False)))
    plain = nnx.merge(graph, nnx.state(renderer))
    tokens = renderer.reference_tokens(REFERENCE)
    return tuple(
        each.predict(z, jnp.ones(2), REFERENCE, tokens, motion, box, still)
        for each in (renderer, plain)
    )


def render(renderer, motion, scale):
    tokens = renderer.reference_tokens(REFERENCE)
    sampling = Sampling(steps=1, motion_guidance=scale)
    return renderer.render(Z, REFERENCE, tokens, motion, BOX, STILL, sampling)


@pytest.fixture(scope="module")
def predicted():
    forward = compiled(predict, make())
    return lambda z=Z, motion=MOTION, box=BOX, still=STILL: forward(z, motion, box, still)


def test_the_output_may_be_a_change_of_the_reference(predicted):
    output, change = predicted()
    np.testing.assert_allclose(output - REFERENCE[:, None], change, atol=1e-4)


def test_the_reference_may_be_moved_along_a_predicted_flow():
    config, basis = dataclasses.replace(CONFIG, warps_reference=True), draw(48, 2)

    def run(renderer):
        renderer.codec.basis[...] = jnp.asarray(basis)
        tokens = renderer.reference_tokens(REFERENCE)

        def output(down, motion=MOTION):
            # The flow's part of the last layer: so many cells everywhere, whatever comes in.
            last = renderer.denoiser.conv_out
            last.kernel[...] = last.kernel[...].at[..., 2:].set(0.0)
            last.bias[...] = last.bias[...].at[2:].set(jnp.array([down, 0.0]))
            return renderer.predict(Z, jnp.ones(2), REFERENCE, tokens, motion, BOX, STILL)

        moved_by_motion = output(0.0, MOTION + 1) - output(0.0)
        renderer.flow.kernel[...] = jnp.zeros_like(renderer.flow.kernel[...])
        alone = output(0.0, MOTION + 1) - output(0.0)
        codec, pictures = renderer.codec, renderer.codec.decode(REFERENCE)
        border = jnp.repeat(pictures[:, -1:], 4, axis=1)
        expected = codec.encode(jnp.concatenate([pictures[:, 4:], border], axis=1))
        return output(1.0) - output(0.0), expected - codec.encode(pictures), moved_by_motion - alone

    # A cell is four pixels.
    difference, expected, by_motion = compiled(run, make(config))()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(difference, np.repeat(expected[:, None], 2, axis=1), atol=1e-3)
    # The motion also moves it by itself.
    assert np.abs(by_motion).max() > 1e-3


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


def test_one_step_of_rendering_is_the_prediction_from_noise(predicted):
    one = compiled(partial(render, scale=1.0), make())(MOTION)
    np.testing.assert_allclose(one, predicted()[0], atol=1e-4)


def test_guidance_goes_on_from_the_references_own_motion(predicted):
    guided = compiled(partial(render, scale=3.0), make())(MOTION)
    moved = predicted()[0]
    still = predicted(motion=np.repeat(STILL[:, None], 2, axis=1))[0]
    # One step lands on the network's own prediction, in which guidance is linear.
    np.testing.assert_allclose(guided, still + 3 * (moved - still), atol=1e-3)
