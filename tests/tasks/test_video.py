"""Temporal layers learn on an image half that stays as it was, bit for bit."""

import functools
import json

import jax
import numpy as np
import pytest
from small_models import assert_the_same_bits_after_a_stop, losses, renderer_file, video_config
from small_models import quick_compilation as quick_compilation

from xactor_jax.checkpoint import load_weights
from xactor_jax.errors import InputError
from xactor_jax.models.renderer import Sampling
from xactor_jax.release import PortraitRenderer
from xactor_jax.state import named_tensors
from xactor_jax.tasks import make_task
from xactor_jax.train import train


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return video_config(tmp_path_factory, renderer_file(tmp_path_factory))


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


@pytest.fixture(scope="module")
def start(task):
    """The temporal layers that a training starts from."""
    return jax.device_get(jax.jit(task.init)(jax.random.key(3)))


@pytest.fixture(scope="module")
def trained(config, task, tmp_path_factory):
    """The workdir of forty uninterrupted steps."""
    workdir = tmp_path_factory.mktemp("video")
    assert train(config, task, workdir) == 40
    return workdir


def test_the_loss_falls(trained):
    loss = losses(trained)
    assert len(loss) == 40
    # Noise levels are drawn anew each step; ten steps average them.
    assert loss[-10:].mean() < 0.8 * loss[:5].mean()


def test_a_stopped_training_ends_at_the_same_bits(config, task, trained, tmp_path):
    assert_the_same_bits_after_a_stop(config, task, trained, tmp_path)


def test_held_out_windows_are_scored_and_shown(trained):
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    for source in ("footage", "actor"):
        assert last[f"evaluate/{source}/change_ratio"] > 0
        assert 0 < last[f"evaluate/{source}/psnr_mouth"] < 60
        assert (trained / "samples" / "step_00000040" / f"{source}.png").stat().st_size > 0


def test_only_temporal_layers_learn(config, start, trained):
    image = named_tensors(load_weights(config.renderer)[0])
    video = named_tensors(load_weights(trained / "model.safetensors")[0])
    temporal = {name for name in video if "temporal" in name.split("/")}
    training = ("params/face_decoder/", "params/truth_reading/")
    unused = {name for name in image if name.startswith(training)}
    assert temporal and set(video) == (set(image) - unused) | temporal
    for name in set(video) - temporal:
        np.testing.assert_array_equal(video[name], image[name])
    learnt = {f"params/renderer/{name}" for name in named_tensors(start)}
    assert learnt == temporal
    # Layers after the zero-initialised last projection learn from the first step on, all others
    # from the second.
    for name, first in named_tensors(start).items():
        if name.endswith("proj_out/kernel"):
            assert not first.any() and video[f"params/renderer/{name}"].any()


def test_at_first_the_video_is_the_image_halfs(config, task, start, tmp_path):
    task.export(start, task.frozen, tmp_path / "video.safetensors")
    draw = np.random.default_rng(0)
    portrait = draw.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    motion = draw.normal(size=(16, 8)).astype(np.float32)
    box = np.tile(np.float32([0.1, 0, 1.1]), (16, 1))
    frames = []
    for path in (config.renderer, tmp_path / "video.safetensors"):
        renderer = PortraitRenderer(path)
        noise = renderer.noise(jax.random.key(0))
        seen = renderer.see(portrait, portrait)
        frames.append(renderer.render(seen, motion, box, noise, Sampling()).astype(int))
    assert frames[0].std(axis=0).max() > 2  # the motion shows
    # Two programs of the same sums may round a level apart.
    assert np.abs(frames[0] - frames[1]).max() <= 1


def test_temporal_layers_of_another_training_are_gone_on_from(config, task, trained, tmp_path):
    config = config.copy_and_resolve_references()
    config.initial_weights = str(trained / "model.safetensors")
    config.steps, config.save_every, config.optimizer.learning_rate = 3, 3, 0.0
    assert train(config, task, tmp_path) == 3
    before, after = (
        load_weights(folder / "model.safetensors")[0]["params"] for folder in (trained, tmp_path)
    )
    jax.tree.map(  # but for the rounding of an average of equal values
        functools.partial(np.testing.assert_allclose, rtol=1e-6), before, after
    )


def test_an_image_half_has_no_temporal_layers_to_go_on_from(config, task, tmp_path):
    config = config.copy_and_resolve_references()
    config.initial_weights = config.renderer
    with pytest.raises(InputError, match=r"renderer\.safetensors lacks denoiser/.*temporal"):
        train(config, task, tmp_path)


def test_temporal_layers_are_added_once(trained, tmp_path_factory):
    with pytest.raises(InputError, match="temporal layers already; give an autoencoder's"):
        make_task(video_config(tmp_path_factory, trained / "model.safetensors"))
