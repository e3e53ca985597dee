"""TAESD's codec: latents stay in its range."""

import numpy as np
from models.random_weights import compiled, with_random_weights

from xactor_jax.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig

CONFIG = TinyAutoencoderConfig(channels=4, encoder_blocks=(1, 1), decoder_blocks=(1, 1))


def test_latents_far_outside_do_not_overexpose_the_picture():
    codec = with_random_weights(lambda rngs: TinyAutoencoder(CONFIG, rngs=rngs))
    decode = compiled(lambda codec, z: codec.decode(z), codec)
    latents = np.random.default_rng(0).normal(size=(1, 3, 2, 4)).astype(np.float32)
    far = np.asarray(decode(1e4 * latents))
    assert far.shape == (1, 6, 4, 3)
    # The soft limit of the range: three times the sign.
    np.testing.assert_allclose(far, decode(1e6 * np.sign(latents)), rtol=1e-5, atol=1e-5)
