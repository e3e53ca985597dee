"""The benchmark of acting compares ways to compute the same."""

import importlib.util

import numpy as np
import pytest
from small_models import quick_compilation as quick_compilation

from benchmarks.motion import measure, networks
from xactor_jax.data.audio_features import MelConfig
from xactor_jax.errors import InputError
from xactor_jax.models.motion_transformer import MotionTransformerConfig


@pytest.mark.parametrize("shared_modulation", [False, True])
def test_all_ways_act_the_same_first_chunk_and_their_ratio_is_reported(shared_modulation):
    mel = MelConfig(bands=6, hops=2)
    config = MotionTransformerConfig(
        latent=3,
        audio=mel.width,
        width=8,
        depth=2,
        heads=2,
        chunk=5,
        context=15,
        shared_modulation=shared_modulation,
    )
    found = measure(config, mel, steps=2, chunks=2)
    assert found["first_chunk_difference"] < 1e-5  # fp32
    ratio = found["cached_seconds_a_chunk"] / found["recomputed_seconds_a_chunk"]
    np.testing.assert_allclose(found["cached_to_recomputed"], ratio)
    assert ("cached_to_torch" in found) == bool(importlib.util.find_spec("torch"))
    np.testing.assert_allclose(found["real_time_factor"], found["cached_seconds_a_chunk"] / 0.2)
    # Keys and values of 10 frames of 8 numbers in 2 layers and 2 branches, and which are known.
    np.testing.assert_allclose(found["past_megabytes"], (2 * 10 * 8 * 2 * 2 * 4 + 10) / 1e6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("size", "width"), [("full", 1024), ("tiny", 192)])
def test_the_measured_network_is_the_configured_one_in_the_type_asked_for(size, width, dtype):
    config, mel = networks(size, dtype)
    assert (config.width, config.dtype) == (width, dtype)
    assert not config.scan and not config.rematerialise  # as weights files are run
    assert size == "full" or config.audio == mel.width
    assert networks(size, dtype, 10)[0].chunk == 10
    with pytest.raises(InputError, match="--chunk=126: use 1 to"):
        networks(size, dtype, 126)
