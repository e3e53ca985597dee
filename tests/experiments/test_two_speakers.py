"""Scenes of two people are laid out as said, and the two are told apart by their tint."""

import numpy as np
import pytest

from experiments.two_speakers import LAYOUTS, TINTS, is_second, scene, tinted
from xactor_jax.data.shards import Clip, encode_frame

# One is redder than the other from the start, as faces are.
PEOPLE = [
    np.random.default_rng(seed).integers((low, 60, 60), 200, (2, 256, 256, 3)).astype(np.uint8)
    for seed, low in enumerate((120, 60))
]


def clip_of(view: np.ndarray) -> Clip:
    return Clip(
        clip="one",
        source="footage",
        identity="",
        size=len(view),
        frames=[encode_frame(view)],
        head_box=np.full((1, 3), 0.5, np.float32),
        audio=np.zeros(640, np.int16),
    )


@pytest.mark.parametrize(("layout", "width"), [*zip(LAYOUTS, (512, 320, 422), strict=True)])
def test_both_are_in_the_picture_and_told_apart(layout, width):
    (picture, _) = scene(*map(tinted, PEOPLE, TINTS), layout)
    assert picture.shape == (256, width, 3)
    assert not is_second(clip_of(picture[-150:, :150]))
    assert is_second(clip_of(picture[-150:, -150:]))
