"""The diffusion transformers: patches, what starts as nothing, and how large they are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from einops import rearrange
from flax import nnx
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from models.random_weights import compiled, newly_made, quick_jit, with_random_weights
from small_models import autoencoder_config, random_weights, video_config
from small_models import quick_compilation as quick_compilation

from xactor_jax.models.video_dit import DiT, DiTConfig
from xactor_jax.nn.layers import abstract
from xactor_jax.release import PortraitRenderer
from xactor_jax.sharding import MESH_AXES, tensor_shardings
from xactor_jax.state import named_tensors
from xactor_jax.tasks import make_task

CONFIG = DiTConfig(
    in_channels=3,
    out_channels=2,
    width=8,
    depth=2,
    heads=2,
    feed_forward=1,
    motion_token=4,
    pooled_motion=3,
    max_frames=2,
)
DRAW = np.random.default_rng(0)


def draw(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


LATENTS, LEVEL = draw(2, 2, 4, 4, 3), np.array([0.2, 0.7], np.float32)
MOTION, POOLED = draw(2, 2, 3, 4), draw(2, 2, 3)
REFERENCE = [draw(2, 4, 8) for _ in range(2)]  # one for each block


def run(network, latents, reference=None):
    return network(latents, LEVEL, motion=MOTION, pooled_motion=POOLED, reference=reference)[0]


def test_a_new_network_predicts_zero_and_leaves_its_tokens_alone():
    config = dataclasses.replace(CONFIG, temporal=True)
    network = newly_made(lambda rngs: DiT(config, rngs=rngs))

    def both(network):
        output, tokens = network(LATENTS, LEVEL, motion=MOTION, reference=REFERENCE)
        return output, tokens

    output, tokens = compiled(both, network)()
    assert output.shape == (2, 2, 4, 4, 2) and not output.any()
    # Every block is the identity: what the second sees is what the first saw.
    np.testing.assert_array_equal(tokens[0], tokens[1])


def test_a_patch_is_predicted_where_it_lies():
    """One patch of a frame, without a way to the other patches: the output changes there alone."""
    network = with_random_weights(lambda rngs: DiT(CONFIG, rngs=rngs))
    for block in network.blocks:
        block.attention.to_out.kernel[...] = jnp.zeros((8, 8))
    forward = compiled(run, network)
    changed = LATENTS.copy()
    changed[0, 0, 2:, :2] += draw(2, 2, 3)
    difference = np.abs(forward(changed) - forward(LATENTS))
    assert difference[0, 0, 2:, :2].min(axis=-1).min() > 1e-4
    difference[0, 0, 2:, :2] = 0
    assert not difference.any()


def test_equal_patches_are_told_apart_by_their_place():
    network = with_random_weights(lambda rngs: DiT(CONFIG, rngs=rngs))
    flat = np.broadcast_to(LATENTS[:, :, :1, :1], LATENTS.shape)
    frame = np.asarray(compiled(run, network)(flat))[0, 0]
    first, *others = rearrange(frame, "(h p) (w q) c -> (h w) p q c", p=2, q=2)
    assert all(np.abs(other - first).max() > 1e-3 for other in others)


def test_a_reference_network_gives_the_tokens_that_its_blocks_attend_to():
    config = dataclasses.replace(
        CONFIG, out_channels=None, motion_token=0, pooled_motion=0, image_token=5
    )
    network = with_random_weights(lambda rngs: DiT(config, rngs=rngs))

    def run(network, latents, token):
        return network(latents, np.zeros(2, np.float32), image_token=token)

    forward = compiled(run, network)
    output, tokens = forward(LATENTS[:, :1], draw(2, 1, 5))
    assert output is None
    assert [x.shape for x in tokens] == [(2, 4, 8)] * 2
    _, other = forward(LATENTS[:, :1], draw(2, 1, 5))
    np.testing.assert_array_equal(tokens[0], other[0])  # before the first cross-attention
    assert np.abs(tokens[1] - other[1]).max() > 1e-3
    with pytest.raises(ValueError, match="image or motion tokens; the call lacks them"):
        network(LATENTS, LEVEL)


def test_the_last_layer_learns_first_and_the_rest_after_it():
    network = newly_made(lambda rngs: DiT(CONFIG, rngs=rngs))
    graph, state = nnx.split(network)

    @quick_jit
    def step(state):
        def loss(state):
            output = run(nnx.merge(graph, state), LATENTS, REFERENCE)
            return jnp.mean((output - 1) ** 2)

        slopes = jax.grad(loss)(state)
        return jax.tree.map(lambda x, slope: x - 0.1 * slope, state, slopes), slopes

    moved = []
    for _ in range(3):
        state, slopes = step(state)
        slopes = named_tensors(nnx.to_pure_dict(slopes))
        moved.append({name for name, slope in slopes.items() if np.any(slope)})
    assert moved[0] == {"patch_out/kernel", "patch_out/bias"}
    assert moved[2] == set(slopes)


def closed_form(d, depth, temporal):
    """Parameters of a denoiser of the default patch, tokens and channels; d is its width."""
    attention = 4 * d**2 + d  # four projections, the last with a bias
    motion = 2 * d + 2 * d**2 + 2 * 16 * d + d  # norm, queries and output, keys and values
    feed_forward = (8 * d**2 + 8 * d) + (4 * d**2 + d)  # a gate as wide as the values
    modulation = 6 * (d**2 + d)
    block = modulation + attention + motion + feed_forward + temporal * (2 * d + attention)
    noise_level = (256 * d + d) + (d**2 + d)
    patches_in, patches_out = 16 * d + d, 2 * (d**2 + d) + (d + 1) * 16
    return noise_level + patches_in + depth * block + patches_out


@pytest.mark.parametrize("temporal", [False, True])
def test_the_default_is_as_large_as_by_hand_and_splits_over_a_mesh(temporal):
    config = DiTConfig(temporal=temporal)
    state = nnx.state(abstract(lambda rngs: DiT(config, rngs=rngs)), nnx.Param)
    params = nnx.to_pure_dict(state)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == closed_form(1152, 28, temporal)
    assert round(count / 1e6) == (1047 if temporal else 898)  # as its docstring says
    mesh = AbstractMesh((1, 8, 1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 4)
    specs = jax.tree.map(lambda sharding: sharding.spec, tensor_shardings(params, mesh))
    whole = [
        name
        for name, leaf in named_tensors(params).items()
        if leaf.ndim > 1 and named_tensors(specs)[name] == P()
    ]
    assert not whole


@pytest.mark.parametrize("sizes", [{"width": 12, "heads": 8}, {"width": 6, "heads": 2}])
def test_a_width_that_does_not_divide_is_refused(sizes):
    with pytest.raises(ValueError, match=r"width \d+: must divide"):
        DiTConfig(**sizes)


def descend(task, params, steps):
    """Losses and last parameters of steps of Adam on one batch, always with the same noise."""
    rng, source = np.random.default_rng(0), task.source()
    rows = [task.load(source[int(n)], rng) for n in np.linspace(0, len(source) - 1, 4)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        value = jax.value_and_grad(task.loss, has_aux=True)
        (loss, _), slopes = value(params, task.frozen, batch, jax.random.key(0))
        updates, state = optimizer.update(slopes, state)
        return optax.apply_updates(params, updates), state, loss

    losses, state = [], optimizer.init(params)
    for _ in range(steps):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    return losses, params


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """Losses of a few steps of the autoencoder from random weights, and the file it left."""
    task = make_task(autoencoder_config(tmp_path_factory, "tiny_dit"))
    losses, params = descend(task, random_weights(task, 1), 20)
    path = tmp_path_factory.mktemp("dit") / "renderer.safetensors"
    task.export(params, task.frozen, path)
    return losses, path


def test_the_autoencoder_learns_with_it_and_its_weights_open(autoencoder):
    losses, path = autoencoder
    assert losses[-1] < 0.7 * losses[0]
    assert isinstance(PortraitRenderer(path).config.denoiser, DiTConfig)


def test_the_video_task_adds_temporal_attention_that_learns(autoencoder, tmp_path_factory):
    task = make_task(video_config(tmp_path_factory, autoencoder[1], **{"data.targets": 4}))
    first = jax.device_get(jax.jit(task.init)(jax.random.key(0)))
    assert all("temporal" in name.split("/") for name in named_tensors(first))
    losses, params = descend(task, first, 10)
    assert losses[-1] < losses[0]
    path = autoencoder[1].with_name("video.safetensors")
    task.export(params, task.frozen, path)
    assert PortraitRenderer(path).config.denoiser == dataclasses.replace(
        PortraitRenderer(autoencoder[1]).config.denoiser, temporal=True, max_frames=4
    )
