"""The U-Nets: a hidden reference is an absent one, and new temporal modules change nothing."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from models.random_weights import compiled, quick_jit, with_random_weights

from xactor_jax.models.video_unet import UNet, UNetConfig
from xactor_jax.state import named_tensors

CONFIG = UNetConfig(
    in_channels=2,
    out_channels=2,
    channels=(4,),
    layers=1,
    attention_levels=(True,),
    heads=2,
    groups=2,
    feed_forward=1,
    image_token=0,
    motion_token=4,
    motion_feed_forward=1,
    pooled_motion=3,
    max_frames=2,
)
DRAW = np.random.default_rng(0)


def draw(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


SEEN = np.array([True, False])
LATENTS, LEVEL = draw(2, 2, 4, 4, 2), np.array([0.2, 0.7], np.float32)
MOTION, POOLED = draw(2, 2, 3, 4), draw(2, 2, 3)
# One for each attention block: the layer down, the middle, and both layers up.
REFERENCE = [draw(2, 16, 4) for _ in range(4)]


def run(network, latents, level, motion, pooled, reference=None, seen=None):
    return network(
        latents,
        level,
        motion=motion,
        pooled_motion=pooled,
        reference=reference,
        reference_seen=seen,
    )[0]


@pytest.fixture(scope="module")
def network():
    return with_random_weights(lambda rngs: UNet(CONFIG, rngs=rngs))


@pytest.fixture(scope="module")
def without_reference(network):
    forward = compiled(run, network)
    return lambda latents=LATENTS, motion=MOTION, pooled=POOLED: np.asarray(
        forward(latents, LEVEL, motion, pooled)
    )


@pytest.fixture(scope="module")
def with_reference(network):
    forward = compiled(run, network)
    return lambda seen, reference=REFERENCE: np.asarray(
        forward(LATENTS, LEVEL, MOTION, POOLED, reference, np.array(seen))
    )


def test_shared_once_the_reference_is_the_same(network, with_reference):
    def shared(network, tokens):
        return run(network, LATENTS, LEVEL, MOTION, POOLED, network.share(tokens), SEEN)

    np.testing.assert_allclose(
        compiled(shared, network)(REFERENCE), with_reference(SEEN), rtol=1e-5, atol=1e-5
    )


def test_a_hidden_reference_is_an_absent_one_for_each_video(with_reference, without_reference):
    absent, seen = without_reference(), with_reference([True, True])
    # The masked keys add exact zeros; only the order of the sums may differ.
    rounding = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(with_reference([False, False]), absent, **rounding)
    mixed = with_reference([True, False])
    np.testing.assert_allclose(mixed[0], seen[0], **rounding)
    np.testing.assert_allclose(mixed[1], absent[1], **rounding)
    assert np.abs(seen - absent).max(axis=(1, 2, 3, 4)).min() > 1e-2


@pytest.mark.parametrize("block", range(4))
def test_every_attention_block_reads_its_own_reference_tokens(with_reference, block):
    changed = [x + 1.0 * (n == block) * draw(*x.shape) for n, x in enumerate(REFERENCE)]
    both, other = [True, True], with_reference([True, True], changed)
    assert np.abs(other - with_reference(both)).max() > 1e-3


def test_the_image_half_treats_every_frame_by_itself(without_reference):
    before = without_reference()
    for name, value in (("latents", LATENTS), ("motion", MOTION), ("pooled", POOLED)):
        changed = value.copy()
        changed[0, 1] += 1 + draw(*value.shape[2:])
        after = without_reference(**{name: changed})
        assert np.abs(after[0, 1] - before[0, 1]).max() > 1e-3, name
        np.testing.assert_array_equal(after[0, 0], before[0, 0])
        np.testing.assert_array_equal(after[1], before[1])


def test_new_temporal_modules_leave_the_image_half_unchanged(network, without_reference):
    config = dataclasses.replace(CONFIG, temporal=True)
    video = with_random_weights(lambda rngs: UNet(config, rngs=rngs), seed=1)
    graph, state = nnx.split(video)
    structure = jax.tree.structure(nnx.to_pure_dict(state))
    image = named_tensors(nnx.to_pure_dict(nnx.state(network)))
    tensors = named_tensors(nnx.to_pure_dict(state))
    added = set(tensors) - set(image)
    assert set(image) <= set(tensors)
    assert all("temporal" in name for name in added)

    @quick_jit
    def forward(tensors):
        filled = jax.tree.unflatten(structure, tensors.values())
        return run(nnx.merge(graph, filled), LATENTS, LEVEL, MOTION, POOLED)

    # A new module's last projection is zero (tests/nn/test_blocks.py).
    new = {name: 0 * tensors[name] for name in added if "proj_out" in name}
    assert len(new) == 2 * 4
    rounding = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(forward(tensors | image | new), without_reference(), **rounding)
    assert np.abs(forward(tensors | image) - without_reference()).max() > 1e-2


def test_a_reference_network_gives_the_tokens_of_its_attention_blocks_in_order():
    config = dataclasses.replace(
        CONFIG,
        out_channels=None,
        channels=(4, 8),
        attention_levels=(True, False),
        motion_token=0,
        pooled_motion=0,
        image_token=5,
    )
    network = with_random_weights(lambda rngs: UNet(config, rngs=rngs))

    def run(network, latents, token):
        return network(latents, np.zeros(2, np.float32), image_token=token)

    forward = compiled(run, network)
    output, tokens = forward(LATENTS[:, :1], draw(2, 1, 5))
    assert output is None
    # Down on the first level, the middle at half its resolution, and twice up on the first level.
    assert [x.shape for x in tokens] == [(2, 16, 4), (2, 4, 8), (2, 16, 4), (2, 16, 4)]
    _, other = forward(LATENTS[:, :1], draw(2, 1, 5))
    np.testing.assert_array_equal(tokens[0], other[0])  # before the first cross-attention
    assert np.abs(tokens[1] - other[1]).max() > 1e-3
