"""wav2vec2: features at the rate of the video."""

import jax
import numpy as np
import pytest
from flax import nnx

from xactor_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config, interpolate, standardised
from xactor_jax.nn.layers import abstract

TINY = Wav2Vec2Config(
    conv_channels=4, width=8, layers=2, heads=2, feed_forward=8, position_groups=2
)


def states(seconds, frames=None):
    """Shape of the hidden states of that much speech."""
    audio = jax.ShapeDtypeStruct((3, round(seconds * 16_000)), "float32")
    graph, weights = nnx.split(abstract(lambda rngs: Wav2Vec2(TINY, rngs=rngs)))
    return jax.eval_shape(lambda w, x: nnx.merge(graph, w)(x, frames), weights, audio).shape


@pytest.mark.parametrize(("seconds", "frames"), [(1.0, 25), (2.04, 51), (0.025, 1)])
def test_there_are_25_frames_a_second_of_every_layer_and_of_what_enters_the_first(seconds, frames):
    assert states(seconds) == (3, 3, frames, 8)


def test_the_number_of_frames_can_be_given():
    assert states(1.0, frames=30) == (3, 3, 30, 8)


def test_audio_must_fill_one_feature():
    assert Wav2Vec2Config().shortest == 400
    with pytest.raises(ValueError, match="400 samples"):
        states(399 / 16_000)


@pytest.mark.parametrize(("features", "frames"), [(49, 25), (3, 7), (5, 1), (1, 4), (6, 6)])
def test_interpolation_is_linear_and_keeps_both_ends(features, frames):
    given = np.random.default_rng(0).normal(size=(2, features, 3)).astype(np.float32)
    places = np.linspace(0, features - 1, frames)
    expected = np.stack(
        [
            np.stack([np.interp(places, np.arange(features), column) for column in item.T], axis=1)
            for item in given
        ]
    )
    np.testing.assert_allclose(interpolate(given, frames), expected, atol=1e-6)


def test_loudness_and_offset_do_not_count():
    speech = np.random.default_rng(0).normal(size=(1, 4000)).astype(np.float32)
    found = np.asarray(standardised(0.1 * speech + 0.3))
    np.testing.assert_allclose(found, standardised(speech), atol=1e-4)
    np.testing.assert_allclose([found.mean(), found.std()], [0, 1], atol=1e-4)
