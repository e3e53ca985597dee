"""The U-Nets: what a reference network gives (the rest is in test_denoisers.py)."""

import numpy as np
from models.random_weights import compiled, with_random_weights

from xactor_jax.models.video_unet import UNet, UNetConfig


def test_a_reference_network_gives_the_tokens_of_its_attention_blocks_in_order():
    config = UNetConfig(
        in_channels=2,
        out_channels=None,
        channels=(4, 8),
        layers=1,
        attention_levels=(True, False),
        heads=2,
        groups=2,
        feed_forward=1,
        motion_token=0,
        image_token=5,
    )
    draw = np.random.default_rng(0).normal
    latents = draw(size=(2, 1, 4, 4, 2)).astype(np.float32)
    network = with_random_weights(lambda rngs: UNet(config, rngs=rngs))

    def run(network, latents, token):
        return network(latents, np.zeros(2, np.float32), image_token=token)

    forward = compiled(run, network)
    output, tokens = forward(latents, draw(size=(2, 1, 5)).astype(np.float32))
    assert output is None
    # Down on the first level, the middle at half its resolution, and twice up on the first level.
    assert [x.shape for x in tokens] == [(2, 16, 4), (2, 4, 8), (2, 16, 4), (2, 16, 4)]
    _, other = forward(latents, draw(size=(2, 1, 5)).astype(np.float32))
    np.testing.assert_array_equal(tokens[0], other[0])  # before the first cross-attention
    assert np.abs(tokens[1] - other[1]).max() > 1e-3
