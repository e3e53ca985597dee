"""CLIP's image encoder: pictures are prepared as for the published one."""

import numpy as np
from PIL import Image

from xactor_jax.models.clip import standardised

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711])


def test_pictures_are_resized_as_pillow_does_and_standardised():
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (9, 9, 3), np.uint8))
    picture = coarse.resize((90, 90), Image.Resampling.BICUBIC)
    expected = np.asarray(picture.resize((56, 56), Image.Resampling.BICUBIC), np.float64)
    given = np.asarray(picture, np.float32)[None] / 127.5 - 1
    levels = (np.asarray(standardised(given, 56))[0] * DEVIATION + MEAN) * 255
    # Pillow rounds to whole levels after each of its two directions.
    assert np.abs(levels - expected).max() < 1.6


def test_a_picture_of_the_right_size_is_only_standardised():
    white = np.ones((1, 56, 56, 3), np.float32)
    found = np.asarray(standardised(white, 56))
    np.testing.assert_allclose(found[0, 0, 0], (1 - MEAN) / DEVIATION, rtol=1e-6)
    assert np.ptp(found, axis=(1, 2)).max() == 0
