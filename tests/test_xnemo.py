"""Converted networks, small and random, reenact a film from the command line.

What the networks compute is compared with the official code in tests/parity.
"""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from generation import command as command
from generation import opened_once as opened_once
from generation import portrait as portrait
from media.drawn import talking_clip, write_media
from models.random_weights import with_random_weights
from small_models import motion_config, random_weights
from small_models import quick_compilation as quick_compilation

from xactor_jax import xnemo
from xactor_jax.checkpoint import save_weights
from xactor_jax.media.video import read_video
from xactor_jax.models.autoencoder_kl import AutoencoderKLConfig
from xactor_jax.models.clip import CLIPImageEncoderConfig
from xactor_jax.models.motion_encoder import MotionEncoderConfig
from xactor_jax.models.renderer import Sampling
from xactor_jax.models.tiny_autoencoder import TinyAutoencoderConfig
from xactor_jax.models.video_unet import UNetConfig
from xactor_jax.release import open_checkpoint, open_renderer
from xactor_jax.tasks import make_task
from xactor_jax.xnemo import CODECS, NETWORKS, XNemoRenderer

UNET = {
    "channels": (8, 8),
    "layers": 1,
    "attention_levels": (True, False),
    "heads": 2,
    "groups": 4,
    "image_token": 12,
    "motion_token": 8,
}
CONFIGS = {
    "motion_encoder": MotionEncoderConfig(
        image_size=32,
        channels=(8, 8, 16),
        hourglass_depth=1,
        attention_width=32,
        attention_heads=1,
        feed_forward=1,
        landmark_channels=8,
        latent=8,
        box_width=4,
        tokens=2,
        token_width=8,
    ),
    "reference_network": UNetConfig(out_channels=None, **{**UNET, "motion_token": 0}),
    "denoiser": UNetConfig(temporal=True, **UNET),
    "clip": CLIPImageEncoderConfig(
        image_size=28, width=16, layers=1, heads=2, feed_forward=16, projection=12
    ),
    "sd_vae": AutoencoderKLConfig(channels=(8, 8), layers=1, groups=4),
    "svd_vae": AutoencoderKLConfig(channels=(8, 8), layers=1, groups=4, temporal=True),
    "taesd": TinyAutoencoderConfig(channels=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
}


def write(folder, name):
    config, make = CONFIGS[name], {**NETWORKS, **CODECS}[name][1]
    network = with_random_weights(lambda rngs: make(config, rngs=rngs), deviation=0.2)
    params, statistics = nnx.split(network, nnx.Param, ...)[1:]
    statistics = jax.tree.map(np.ones_like, nnx.to_pure_dict(statistics))  # no variance is zero
    weights = {"params": nnx.to_pure_dict(params), "statistics": statistics}
    metadata = {"kind": name, name: dataclasses.asdict(config)}
    save_weights(folder / f"{name}.safetensors", weights, metadata)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All networks with Stable Diffusion's codec; the latent is 16 cells wide, not 64."""
    folder = tmp_path_factory.mktemp("converted")
    for name in (*NETWORKS, "sd_vae"):
        write(folder, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xnemo, "_CELLS", 16)
        yield folder


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_media(path, talking_clip(25), [t / 25 for t in range(25)])


def test_a_film_is_reenacted_by_the_command(command, folder, film, portrait, tmp_path):
    flags = {"image": portrait, "driving": film, "checkpoint": folder, "steps": 2}
    for name, changes in (("one", {}), ("two", {}), ("other", {"seed": 1})):
        output = tmp_path / f"{name}.mp4"
        code, out, err = command(**flags | changes, output=output)
        assert (code, err) == (0, "") and "frames" in out
    one, other = (list(read_video(tmp_path / f"{name}.mp4")) for name in ("one", "other"))
    assert len(one) == 25 and one[0].shape == (32, 32, 3)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert np.abs(np.stack(one).astype(int) - np.stack(other)).max() > 2


@pytest.fixture(scope="module")
def renderer(folder):
    return open_renderer(folder)


def animated(renderer, motion, picture=0, guidance=2.0):
    draw = np.random.default_rng(picture)
    portrait, crop = (draw.integers(0, 256, (32, 32, 3)).astype(np.uint8) for _ in range(2))
    sampling = Sampling(steps=2, motion_guidance=guidance)
    frames = renderer.animate(portrait, crop, iter(motion), [], jax.random.key(0), sampling)
    return np.stack(list(frames)).astype(int)


def test_motion_portrait_and_guidance_show_in_every_frame(renderer):
    motion = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)  # two windows
    frames = animated(renderer, motion)
    assert frames.shape == (30, 32, 32, 3)
    for other in (
        animated(renderer, motion[::-1]),
        animated(renderer, motion, picture=1),
        animated(renderer, motion, guidance=1.0),
    ):
        assert np.abs(frames - other).max(axis=(1, 2, 3)).min() > 0


def test_motion_can_be_learnt_on_its_latents_and_act(folder, tmp_path, tmp_path_factory):
    task = make_task(motion_config(tmp_path_factory, folder))
    place = shutil.copytree(folder, tmp_path / "both")
    task.export(random_weights(task, 2), task.frozen, place / "motion.safetensors")
    renderer, sampler = open_checkpoint(place)
    assert sampler.config.latent == 8 and sampler.encoder == renderer.encoder


@pytest.mark.parametrize("codec", ["svd_vae", "taesd"])
def test_other_codecs_take_its_place(codec, folder, tmp_path):
    for name in NETWORKS:
        shutil.copy(folder / f"{name}.safetensors", tmp_path)
    write(tmp_path, codec)
    motion = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    assert animated(XNemoRenderer(tmp_path), motion).shape == (3, 32, 32, 3)


def test_what_is_missing_and_how_to_get_it_is_said(command, folder, film, portrait, tmp_path):
    flags = {"image": portrait, "driving": film, "output": tmp_path / "a.mp4"}
    for missing, cure in (
        ("sd_vae", "convert svd_vae --source=WEIGHTS"),
        ("clip", "convert clip --source=WEIGHTS"),
        ("reference_network", "convert xnemo --source=WEIGHTS"),
    ):
        place = shutil.copytree(folder, tmp_path / missing)
        (place / f"{missing}.safetensors").unlink()
        code, _, err = command(**flags, checkpoint=place)
        assert code == 2 and err.count("\n") == 1 and cure in err
    code, _, err = command(image=portrait, audio=film, checkpoint=folder, output=tmp_path / "a.mp4")
    assert code == 2 and "no audio track" in err
