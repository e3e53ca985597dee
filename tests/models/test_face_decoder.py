"""The supervising decoder: starts as the reference crop, then listens to the latent."""

import jax.numpy as jnp
import numpy as np
from models.random_weights import compiled, newly_made, with_random_weights

from xactor_jax.models.face_decoder import FaceDecoder, FaceDecoderConfig

CONFIG = FaceDecoderConfig(latent=3, grid=2, channels=(8, 4))
DRAW = np.random.default_rng(0)
LATENT = DRAW.normal(size=(2, 3)).astype(np.float32)
CROP = DRAW.uniform(-1, 1, size=(2, 8, 8, 3)).astype(np.float32)


def run(decoder, latent, crop):
    return decoder(latent, crop)


def test_a_new_decoder_returns_the_reference_crop():
    assert CONFIG.image_size == 8
    decoder = newly_made(lambda rngs: FaceDecoder(CONFIG, rngs=rngs))
    np.testing.assert_array_equal(compiled(run, decoder)(LATENT, CROP), CROP)


def test_the_latent_reaches_the_whole_crop_of_its_own_picture():
    forward = compiled(run, with_random_weights(lambda rngs: FaceDecoder(CONFIG, rngs=rngs)))
    before = forward(LATENT, CROP)
    after = forward(LATENT + jnp.array([[1.0], [0.0]]), CROP)
    assert np.all(np.abs(after[0] - before[0]).max(axis=-1) > 1e-4)
    np.testing.assert_array_equal(after[1], before[1])
