"""The benchmark's two sides are the same networks."""

import pytest

from benchmarks.networks import NETWORKS, SIZES, attention_maps, baseline, ours


def test_the_full_unet_attends_in_sixteen_blocks():
    maps = attention_maps(SIZES["full"])
    assert maps == [
        *[(64, 320)] * 2,
        *[(32, 640)] * 2,
        *[(16, 1280)] * 2,
        (8, 1280),
        *[(16, 1280)] * 3,
        *[(32, 640)] * 3,
        *[(64, 320)] * 3,
    ]


@pytest.mark.parametrize("network", NETWORKS)
def test_both_sides_have_as_many_parameters(network):
    for package in ("torch", "diffusers", "transformers"):
        pytest.importorskip(package)
    # wav2vec2 of transformers has a token that hides audio, and weight norm keeps lengths apart.
    further = {"wav2vec2": 128 + 128}
    own, *_ = ours(network, "small")
    assert own == baseline(network, "small")[0] - further.get(network, 0)
