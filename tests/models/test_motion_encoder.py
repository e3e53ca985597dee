"""The motion encoder: each picture by itself, and the box joins after the latent."""

import numpy as np
import pytest
from models.random_weights import compiled, with_random_weights

from xactor_jax.models.motion_encoder import MotionEncoder, MotionEncoderConfig
from xactor_jax.nn.embeddings import sincos_positions

CONFIG = MotionEncoderConfig(
    image_size=16,
    channels=(8, 8, 12),
    hourglass_depth=1,
    attention_width=16,
    attention_heads=2,
    feed_forward=1,
    landmark_channels=6,
    latent=6,
    box_width=4,
    tokens=4,
    token_width=4,
    norm="group",
)
DRAW = np.random.default_rng(0)
PICTURES = DRAW.uniform(-1, 1, size=(3, 16, 16, 3)).astype(np.float32)
BOXES = DRAW.normal(size=(3, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    return with_random_weights(lambda rngs: MotionEncoder(CONFIG, rngs=rngs))


@pytest.fixture(scope="module")
def encoded(encoder):
    """Pictures and boxes -> latents, tokens, and tokens made of the latents."""

    def run(encoder, pictures, boxes):
        latents = encoder.encode(pictures)
        return latents, encoder(pictures, boxes), encoder.fuse(latents, boxes)

    forward = compiled(run, encoder)
    return lambda pictures, boxes: [np.asarray(x) for x in forward(pictures, boxes)]


def test_fusing_the_latent_is_the_whole_encoder(encoded):
    latents, whole, fused = encoded(PICTURES, BOXES)
    assert latents.shape == (3, 6)
    assert whole.shape == (3, 4, 4)
    np.testing.assert_allclose(fused, whole, rtol=1e-5, atol=1e-5)


def test_tokens_are_a_linear_map_of_latent_and_box_plus_positions(encoder, encoded):
    def linear(layer, x):
        return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])

    latents, tokens, _ = encoded(PICTURES, BOXES)
    box = linear(encoder.box_2, np.maximum(linear(encoder.box_1, BOXES), 0))
    fused = linear(encoder.final_proj, np.concatenate([latents, box], axis=1))
    expected = fused.reshape(3, 4, 4) + sincos_positions(4, 4)
    np.testing.assert_allclose(tokens, expected, rtol=1e-4, atol=1e-4)


def test_pictures_are_encoded_one_by_one(encoded):
    latents, tokens, _ = encoded(PICTURES, BOXES)
    assert np.abs(latents[0] - latents[1]).max() > 1e-3
    changed = PICTURES.copy()
    changed[1] *= -1
    other, other_tokens, _ = encoded(changed, BOXES)
    assert np.abs(other[1] - latents[1]).max() > 1e-3
    for before, after in ((latents, other), (tokens, other_tokens)):
        np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])


def test_the_box_changes_the_tokens_of_its_picture_and_no_latent(encoded):
    latents, tokens, _ = encoded(PICTURES, BOXES)
    moved = BOXES + np.array([[0, 0, 0], [0.5, 0, 0], [0, 0, 0]], np.float32)
    same, other, _ = encoded(PICTURES, moved)
    np.testing.assert_array_equal(latents, same)
    np.testing.assert_array_equal(tokens[[0, 2]], other[[0, 2]])
    assert np.abs(tokens[1] - other[1]).max() > 1e-3
