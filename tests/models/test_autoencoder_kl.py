"""Stable Diffusion's codec: what its decoders see of neighbouring frames."""

import numpy as np
import pytest
from models.random_weights import compiled, with_random_weights

from xactor_jax.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig

LATENTS = np.random.default_rng(0).normal(size=(6, 2, 3, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("temporal", "seen"),
    [(False, [False, True, False, False, False, False]), (True, [True] * 3 + [False] * 3)],
)
def test_frames_of_one_video_see_each_other_in_the_temporal_decoder_only(temporal, seen):
    config = AutoencoderKLConfig(channels=(8, 8), layers=1, groups=2, temporal=temporal)
    codec = with_random_weights(lambda rngs: AutoencoderKL(config, rngs=rngs))
    decode = compiled(lambda codec, z: codec.decode(z, frames=3), codec)
    other = LATENTS.copy()
    other[1] += 1
    pictures = np.asarray(decode(LATENTS))
    assert pictures.shape == (6, 4, 6, 3)
    difference = np.abs(np.asarray(decode(other)) - pictures)
    # fp32 rounding of pictures of size 1, against changes of that size.
    assert (difference.max(axis=(1, 2, 3)) > 1e-4).tolist() == seen
