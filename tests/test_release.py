"""Weights become models that render any number of frames; wrong files are named."""

import itertools
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from small_models import checkpoint, renderer_file
from small_models import quick_compilation as quick_compilation

from xactor_jax.checkpoint import load_weights, save_weights
from xactor_jax.errors import InputError
from xactor_jax.models.renderer import Sampling
from xactor_jax.release import WINDOW, PortraitRenderer, open_checkpoint

DRAW = np.random.default_rng(0)
PORTRAIT = DRAW.integers(0, 256, (32, 32, 3)).astype(np.uint8)
STILL = np.float32([0, 0, 1])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return open_checkpoint(checkpoint(tmp_path_factory))


@pytest.fixture(scope="module")
def image_half(tmp_path_factory):
    """A renderer without temporal layers."""
    return PortraitRenderer(renderer_file(tmp_path_factory))


def animate(renderer, motion, box=None):
    box = itertools.repeat(STILL) if box is None else box
    key, sampling = jax.random.key(0), Sampling(steps=2)
    frames = renderer.animate(PORTRAIT, PORTRAIT, iter(motion), box, key, sampling)
    return np.stack([frame.astype(int) for frame in frames])


@pytest.mark.parametrize("count", [1, WINDOW, WINDOW + 1, 45])
def test_there_are_as_many_frames_as_motion(models, count):
    motion = DRAW.normal(size=(count, 8)).astype(np.float32)
    assert animate(models[0], motion).shape == (count, 32, 32, 3)


def test_a_frame_of_the_image_half_follows_its_own_motion_and_place(image_half):
    motion = DRAW.normal(size=(20, 8)).astype(np.float32)
    box = STILL + 0.2 * DRAW.normal(size=(20, 3)).astype(np.float32)
    frames, order = animate(image_half, motion, box), DRAW.permutation(20)
    # The frames of a window are computed together: sums may round a level apart.
    assert np.abs(animate(image_half, motion[order], box[order]) - frames[order]).max() <= 1
    assert np.ptp(animate(image_half, motion), axis=0).max() > 2
    assert np.ptp(animate(image_half, np.repeat(motion[:1], 20, axis=0), box), axis=0).max() > 2


def test_temporal_layers_see_the_neighbours_alone(models):
    motion = DRAW.normal(size=(60, 8)).astype(np.float32)
    changed = motion.copy()
    changed[30] += 3
    moved = np.abs(animate(models[0], changed) - animate(models[0], motion)).max(axis=(1, 2, 3))
    # Windows hold frames 0 to 15, 12 to 27, 24 to 39, 36 to 51, ...; four frames are seen before.
    assert not moved[:28].any() and not moved[40:].any()
    assert moved[30] > 0 and np.count_nonzero(moved[28:40]) > 1


def test_any_number_of_crops_is_encoded(models):
    crops = DRAW.integers(0, 256, (35, 32, 32, 3)).astype(np.uint8)
    latents = models[0].encode(crops)
    assert latents.shape == (35, 8)
    np.testing.assert_allclose(models[0].encode(crops[33:34]), latents[33:34], atol=1e-5)
    assert latents.std(axis=0).max() > 0.01


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path, tmp_path_factory):
    whole = checkpoint(tmp_path_factory)
    with pytest.raises(InputError, match="none: no such checkpoint folder"):
        open_checkpoint(tmp_path / "none")
    with pytest.raises(InputError, match=r"renderer\.safetensors: no such weights file"):
        open_checkpoint(tmp_path)
    shutil.copy(whole / "motion.safetensors", tmp_path / "renderer.safetensors")
    with pytest.raises(InputError, match=r"renderer\.safetensors: weights of a motion, not of a"):
        open_checkpoint(tmp_path)
    shutil.copy(whole / "renderer.safetensors", tmp_path)
    with pytest.raises(InputError, match=r"motion\.safetensors: no such weights file"):
        open_checkpoint(tmp_path)
    (tmp_path / "motion.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"motion\.safetensors: not a whole safetensors file"):
        open_checkpoint(tmp_path)
    save_file({"a": np.zeros(1)}, tmp_path / "motion.safetensors")
    with pytest.raises(InputError, match=r"motion\.safetensors: safetensors, but not weights of"):
        open_checkpoint(tmp_path)


def test_weights_that_do_not_fit_their_config_are_named(tmp_path, tmp_path_factory):
    path = checkpoint(tmp_path_factory) / "renderer.safetensors"
    arrays, metadata = load_weights(path)
    changed = tmp_path / "renderer.safetensors"

    def refused(arrays, metadata, message):
        save_weights(changed, arrays, metadata)
        with pytest.raises(InputError, match=rf"renderer\.safetensors{message}"):
            PortraitRenderer(changed)

    renderer = metadata["renderer"]
    unknown = metadata | {"renderer": renderer | {"colour": 1}}
    refused(arrays, unknown, ": its config 'renderer' is of another version .*colour.*; export the")
    wider = renderer | {"codec": renderer["codec"] | {"hidden": 9}}
    refused(arrays, metadata | {"renderer": wider}, " has codec/.* as .*, this config as ")
    del arrays["params"]["renderer"]["encoder"]["fc"]["bias"]
    refused(arrays, metadata, " lacks encoder/fc/bias, which this config has; use another weights")


def test_motion_of_another_encoder_is_refused(tmp_path, tmp_path_factory):
    whole = checkpoint(tmp_path_factory)
    shutil.copy(whole / "motion.safetensors", tmp_path)
    arrays, metadata = load_weights(whole / "renderer.safetensors")
    # Half precision names the same encoder; another weight names another.
    save_weights(tmp_path / "renderer.safetensors", arrays, metadata, "float16")
    open_checkpoint(tmp_path)
    arrays["params"]["renderer"]["encoder"]["fc"]["bias"] += 1
    save_weights(tmp_path / "renderer.safetensors", arrays, metadata)
    with pytest.raises(InputError, match=r"motion\.safetensors: trained on latents of another enc"):
        open_checkpoint(tmp_path)
