"""The autoencoder learns, goes on where it stopped, and leaves weights that others can open."""

import functools
import json

import jax
import numpy as np
import pytest
from PIL import Image
from small_models import (
    assert_the_same_bits_after_a_stop,
    autoencoder_config,
    losses,
    renderer_file,
)
from small_models import quick_compilation as quick_compilation

from configs import autoencoder, encoder
from xactor_jax.checkpoint import load_weights, save_weights
from xactor_jax.data.shards import decode_frames, open_shards
from xactor_jax.errors import InputError
from xactor_jax.release import PortraitRenderer
from xactor_jax.tasks import make_objective, make_task
from xactor_jax.train import train


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return autoencoder_config(tmp_path_factory)


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


@pytest.fixture(scope="module")
def trained(config, task, tmp_path_factory):
    """The workdir of forty uninterrupted steps from random weights."""
    workdir = tmp_path_factory.mktemp("autoencoder")
    config = config.copy_and_resolve_references()
    config.initial_weights = str(renderer_file(tmp_path_factory))
    assert train(config, task, workdir) == 40
    return workdir


def test_the_loss_falls(trained):
    loss = losses(trained)
    assert len(loss) == 40
    # Noise levels are drawn anew each step; ten steps average them.
    assert loss[-10:].mean() < 0.7 * loss[:3].mean()


def test_a_stopped_training_ends_at_the_same_bits(config, task, trained, tmp_path):
    assert_the_same_bits_after_a_stop(config, task, trained, tmp_path)


def test_held_out_clips_are_scored_and_shown(trained):
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    for source in ("footage", "actor"):
        for name in ("psnr", "psnr_mouth", "psnr_reference", "psnr_reference_mouth"):
            assert 0 < last[f"evaluate/{source}/{name}"] < 60
        with Image.open(trained / "samples" / "step_00000040" / f"{source}.png") as strip:
            assert strip.width >= 4 * 32


def test_the_weights_open_as_a_renderer(task, trained):
    renderer = PortraitRenderer(trained / "model.safetensors")
    assert renderer.config == task.renderer
    basis = load_weights(trained / "model.safetensors")[0]["statistics"]["codec"]["basis"]
    # Principal components: orthonormal, and fitted to the training pictures.
    np.testing.assert_allclose(basis.T @ basis, np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(basis, task.frozen["codec"]["basis"])
    clip = open_shards(task.examples.config.folders[0], "test")[0]
    latents = renderer.encode(decode_frames(clip, range(0, 32))[:, 8:40, 8:40])
    assert latents.shape == (32, 8)
    # Normalised, and another for another mouth.
    np.testing.assert_allclose(latents.std(axis=1), 1, atol=1e-2)
    assert latents.std(axis=0).max() > 1e-3


def test_the_encoder_learns_alone_and_the_renderer_goes_on_from_it(config, tmp_path_factory):
    """configs/encoder.py: what is not trained keeps its values, and nothing is rendered."""
    alone = autoencoder_config(tmp_path_factory, file=encoder)
    alone = alone.copy_and_resolve_references()
    alone.initial_weights = str(renderer_file(tmp_path_factory))
    workdir = tmp_path_factory.mktemp("encoder")
    assert train(alone, make_task(alone), workdir) == 40
    loss = losses(workdir)
    assert loss[-10:].mean() < 0.9 * loss[:3].mean()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert not {"flow", "picture", "moved", "codec", "error_to_copying"} & lines[-1].keys()
    assert lines[-1]["evaluate/actor/invariance"] > 0
    assert not list((workdir / "samples").glob("*/*.png"))

    before, after = (
        load_weights(path)[0]["params"]
        for path in (renderer_file(tmp_path_factory), workdir / "model.safetensors")
    )
    jax.tree.map(  # but for the rounding of an average of equal values
        functools.partial(np.testing.assert_allclose, rtol=1e-6),
        before["renderer"]["denoiser"],
        after["renderer"]["denoiser"],
    )
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(),
        before["renderer"]["encoder"],
        after["renderer"]["encoder"],
    )
    assert max(jax.tree.leaves(moved)) > 1e-3
    config = config.copy_and_resolve_references()
    config.initial_weights, config.steps = str(workdir / "model.safetensors"), 3
    config.save_every = 3
    assert train(config, make_task(config), tmp_path_factory.mktemp("after")) == 3


@pytest.mark.parametrize(
    ("kind", "message"),
    [("motion", "weights of a motion, not of a renderer"), ("renderer", "lacks basis")],
)
def test_initial_weights_without_a_codecs_basis_are_named(config, tmp_path, kind, message):
    path = tmp_path / "other.safetensors"
    save_weights(path, {"params": {"kernel": np.zeros(2, np.float32)}}, {"kind": kind})
    config = config.copy_and_resolve_references()
    config.initial_weights = str(path)
    with pytest.raises(InputError, match=rf"other\.safetensors:? {message}"):
        make_task(config)


def test_a_loss_of_moved_pictures_needs_that_they_are_moved():
    config = autoencoder_config(None, **{"renderer.warps_reference": False})
    with pytest.raises(InputError, match=r"loss\.moved=3\.0 needs config\.renderer\.warps_ref"):
        make_objective(config)


@pytest.mark.parametrize(("lesson", "renders"), [(encoder, False), (autoencoder, True)])
def test_only_evaluation_of_what_renders_is_planned_to_render(lesson, renders):
    assert make_objective(lesson.get_config("tiny")).samples == renders


def test_a_task_that_does_not_exist_is_named(config):
    config = config.copy_and_resolve_references()
    config.task = "juggling"
    with pytest.raises(InputError, match=r"juggling.*use autoencoder, motion or video"):
        make_task(config)
