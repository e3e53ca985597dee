"""What both denoisers promise: who sees the reference, frames apart, temporal layers that add."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from models.random_weights import compiled, quick_jit, with_random_weights

from xactor_jax.models.video_dit import DiT, DiTConfig
from xactor_jax.models.video_unet import UNet, UNetConfig
from xactor_jax.state import named_tensors

SIZES = {
    "in_channels": 2,
    "out_channels": 2,
    "heads": 2,
    "feed_forward": 1,
    "motion_token": 4,
    "pooled_motion": 3,
    "max_frames": 2,
}
DRAW = np.random.default_rng(0)
ROUNDING = {"rtol": 1e-4, "atol": 1e-4}


def draw(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


SEEN = np.array([True, False])
LATENTS, LEVEL = draw(2, 2, 4, 4, 2), np.array([0.2, 0.7], np.float32)
MOTION, POOLED = draw(2, 2, 3, 4), draw(2, 2, 3)
KINDS = {
    "unet": SimpleNamespace(
        network=UNet,
        config=UNetConfig(
            channels=(4,),
            layers=1,
            attention_levels=(True,),
            groups=2,
            image_token=0,
            motion_feed_forward=1,
            **SIZES,
        ),
        # One for each attention block: the layer down, the middle, and both layers up.
        reference=[draw(2, 16, 4) for _ in range(4)],
        last_projection="proj_out",  # of a temporal module
        modules=4,
    ),
    "dit": SimpleNamespace(
        network=DiT,
        config=DiTConfig(width=8, depth=2, **SIZES),
        reference=[draw(2, 4, 8) for _ in range(2)],
        last_projection="to_out",
        modules=2,
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]


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
def network(kind):
    return with_random_weights(lambda rngs: kind.network(kind.config, rngs=rngs))


@pytest.fixture(scope="module")
def without_reference(network):
    forward = compiled(run, network)
    return lambda latents=LATENTS, level=LEVEL, motion=MOTION, pooled=POOLED: np.asarray(
        forward(latents, level, motion, pooled)
    )


@pytest.fixture(scope="module")
def with_reference(kind, network):
    forward = compiled(run, network)
    return lambda seen, reference=kind.reference: np.asarray(
        forward(LATENTS, LEVEL, MOTION, POOLED, reference, np.array(seen))
    )


def test_shared_once_the_reference_is_the_same(kind, network, with_reference):
    def shared(network, tokens):
        return run(network, LATENTS, LEVEL, MOTION, POOLED, network.share(tokens), SEEN)

    np.testing.assert_allclose(
        compiled(shared, network)(kind.reference), with_reference(SEEN), rtol=1e-5, atol=1e-5
    )


def test_a_hidden_reference_is_an_absent_one_for_each_video(with_reference, without_reference):
    absent, seen = without_reference(), with_reference([True, True])
    # The masked keys add exact zeros; only the order of the sums may differ.
    np.testing.assert_allclose(with_reference([False, False]), absent, **ROUNDING)
    mixed = with_reference([True, False])
    np.testing.assert_allclose(mixed[0], seen[0], **ROUNDING)
    np.testing.assert_allclose(mixed[1], absent[1], **ROUNDING)
    assert np.abs(seen - absent).max(axis=(1, 2, 3, 4)).min() > 1e-2


def test_every_attention_block_reads_its_own_reference_tokens(kind, with_reference):
    before = with_reference([True, True])
    for block in range(len(kind.reference)):
        changed = [x + 1.0 * (n == block) * draw(*x.shape) for n, x in enumerate(kind.reference)]
        assert np.abs(with_reference([True, True], changed) - before).max() > 1e-3, block


def test_the_image_half_treats_every_frame_by_itself(without_reference):
    before = without_reference()
    for name, value in (("latents", LATENTS), ("motion", MOTION), ("pooled", POOLED)):
        changed = value.copy()
        changed[0, 1] += 1 + draw(*value.shape[2:])
        after = without_reference(**{name: changed})
        assert np.abs(after[0, 1] - before[0, 1]).max() > 1e-3, name
        np.testing.assert_array_equal(after[0, 0], before[0, 0])
        np.testing.assert_array_equal(after[1], before[1])
    swapped = without_reference(LATENTS[:, ::-1], LEVEL, MOTION[:, ::-1], POOLED[:, ::-1])
    np.testing.assert_allclose(swapped[:, ::-1], before, **ROUNDING)


def test_each_video_has_a_noise_level(without_reference):
    before, after = without_reference(), without_reference(level=LEVEL + np.float32([0, 0.1]))
    np.testing.assert_array_equal(after[0], before[0])
    assert np.abs(after[1] - before[1]).max() > 1e-3


def test_new_temporal_layers_leave_the_image_half_unchanged(kind, network, without_reference):
    config = dataclasses.replace(kind.config, temporal=True)
    video = with_random_weights(lambda rngs: kind.network(config, rngs=rngs), seed=1)
    graph, state = nnx.split(video)
    structure = jax.tree.structure(nnx.to_pure_dict(state))
    image = named_tensors(nnx.to_pure_dict(nnx.state(network)))
    tensors = named_tensors(nnx.to_pure_dict(state))
    added = set(tensors) - set(image)
    assert set(image) <= set(tensors)
    assert all("temporal" in name.split("/") for name in added)

    @quick_jit
    def forward(tensors, latents):
        filled = jax.tree.unflatten(structure, tensors.values())
        return run(nnx.merge(graph, filled), latents, LEVEL, MOTION, POOLED)

    # A new layer's last projection is zero (the tests of blocks and of new transformers).
    new = {name: 0 * tensors[name] for name in added if kind.last_projection in name}
    assert len(new) == 2 * kind.modules
    image_half = forward(tensors | image | new, LATENTS)
    np.testing.assert_allclose(image_half, without_reference(), **ROUNDING)
    before, changed = forward(tensors | image, LATENTS), LATENTS.copy()
    assert np.abs(before - image_half).max() > 1e-2
    changed[0, 1] += 1
    after = forward(tensors | image, changed)
    assert np.abs(after[0, 0] - before[0, 0]).max() > 1e-3  # frames of a window see each other
    np.testing.assert_array_equal(after[1], before[1])
    with pytest.raises(ValueError, match="window of 4 frames is over the 2"):
        longer = [np.concatenate([x, x], axis=1) for x in (LATENTS, MOTION, POOLED)]
        run(video, longer[0], LEVEL, *longer[1:])
