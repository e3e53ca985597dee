"""Tasks and checkpoints small enough to be compiled in seconds, and the clips they learn from.

Clips are drawn faces whose mouth opens as the sound grows loud. The checkpoint's weights are random
everywhere, so that layers which start at zero take part too.
"""

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from media.drawn import drawn_face
from ml_collections import ConfigDict
from models.random_weights import with_random_weights

from configs import autoencoder, motion, video
from xactor_jax.checkpoint import save_weights
from xactor_jax.config import build
from xactor_jax.data.shards import Clip, encode_frame, write_shards
from xactor_jax.models.renderer import RendererConfig
from xactor_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from xactor_jax.tasks import make_objective, make_task
from xactor_jax.train import train

VIEW, LENGTH = 48, 52


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(tmp_path_factory):
    """Compile with little optimisation and each program once a session, away from the home."""
    folder = str(tmp_path_factory.getbasetemp() / "compiled")
    changes = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in changes}
    with pytest.MonkeyPatch.context() as patch:
        for name in changes:  # for the processes that a test starts
            patch.setenv(name.upper(), str(changes[name]))
        _configure(changes)
        yield
    _configure(before)


def _configure(values):
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # otherwise the first program ever compiled has decided


def _clip(name, tint, seed, **fields):
    """A face of one tint that opens its mouth in step with the loudness of noise."""
    draw = np.random.default_rng(seed)
    mouth = 0.5 + 0.5 * np.sin(np.arange(LENGTH) * draw.uniform(0.4, 0.8) + draw.uniform(0, 6))
    frames = [
        encode_frame((drawn_face(VIEW, VIEW, (21, 24), 20, m) * np.float32(tint)).astype(np.uint8))
        for m in mouth
    ]
    loudness = np.repeat(mouth, 640)
    sound = 6000 * loudness * draw.normal(size=len(loudness))
    return Clip(
        clip=name,
        frames=frames,
        head_box=np.tile(np.float32([0.5, 0.5, 0.5]), (LENGTH, 1)),
        audio=np.clip(sound, -32767, 32767).astype(np.int16),
        size=VIEW,
        **fields,
    )


def _actors(motion_name, seed):
    """One motion on two identities."""
    return [
        _clip(f"{motion_name}-{who}", tint, seed, source="actor", identity=who, motion=motion_name)
        for who, tint in (("mona", (0.9, 0.7, 0.6)), ("nils", (0.6, 0.8, 0.9)))
    ]


def clips(factory) -> tuple[str, str]:
    """Folders of footage and of actors, each with two clips to train on and two held out."""
    base = factory.getbasetemp() / "clips"
    if not base.exists():
        footage = [
            _clip(f"clip{n}", (1, 1, 1 - 0.1 * n), n, source="footage", identity="olga")
            for n in range(4)
        ]
        write_shards(base / "footage", {"train": footage[:2], "test": footage[2:]})
        write_shards(base / "actors", {"train": _actors("a", 7), "test": _actors("b", 8)})
    return str(base / "footage"), str(base / "actors")


_QUICK = {
    "steps": 40,
    "log_every": 1,
    "save_every": 20,
    "evaluate_every": 1000,
    "batch_size": 4,
    "weights_dtype": "float32",
    "optimizer": {
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "schedule": "constant",
        "weight_decay": 0.0,
        "ema_decay": 0.9,
    },
}
_RENDERER = {
    "image_size": 32,
    "codec": {"factor": 4, "channels": 8, "hidden": 8},
    "encoder": {
        "image_size": 32,
        "channels": (8, 8, 16),
        "hourglass_depth": 1,
        "attention_width": 32,
        "attention_heads": 1,
        "feed_forward": 1,
        "landmark_channels": 8,
        "map_channels": 4,  # of one alone, rectified, often nothing is left
        "latent": 8,
        "box_width": 4,
        "tokens": 2,
        "token_width": 8,
    },
}
_DENOISERS = {
    "tiny": {
        "channels": (8,),
        "layers": 0,  # a middle and one layer above it
        "attention_levels": (False,),
        "heads": 1,
        "groups": 4,
        "feed_forward": 1,
        "motion_token": 8,
        "motion_feed_forward": 1,
    },
    "tiny_dit": {"width": 16, "depth": 1, "heads": 1, "feed_forward": 1, "motion_token": 8},
}


def autoencoder_config(factory, size="tiny", file=autoencoder, **changes) -> ConfigDict:
    """configs/autoencoder.py (or encoder.py) of a tiny size, made smaller.

    factory: of pytest's folders, in which the clips lie; None where none will be read.
    """
    config = file.get_config(size)
    config.update(copy.deepcopy(_QUICK))
    config.optimizer.learning_rate = 3e-3  # at 1e-2 the encoder's rectifiers die
    config.renderer.update({**_RENDERER, "denoiser": _DENOISERS[size]})
    config.face_decoder.channels = (8, 8)
    if factory:
        config.data.folders = clips(factory)
    config.update_from_flattened_dict(changes)
    return config.lock()


def motion_config(factory, renderer: Path, **changes) -> ConfigDict:
    """configs/motion.py:tiny, made smaller."""
    config = motion.get_config("tiny")
    config.update(copy.deepcopy(_QUICK))
    config.renderer = str(renderer)
    config.mel.update({"bands": 8, "hops": 1})
    config.motion.update(
        {"width": 16, "depth": 1, "heads": 1, "feed_forward": 2, "context": 20, "audio_window": 2}
    )
    if factory:
        config.data.folders = clips(factory)
        config.data.cache = str(factory.getbasetemp() / "latents")
    config.update_from_flattened_dict(changes)
    return config.lock()


def video_config(factory, renderer: Path, **changes) -> ConfigDict:
    """configs/video.py:tiny, made smaller."""
    config = video.get_config("tiny")
    config.update(copy.deepcopy(_QUICK))
    config.renderer = str(renderer)
    if factory:
        config.data.folders = clips(factory)
    config.batch_size = 2
    config.update_from_flattened_dict(changes)
    return config.lock()


def small_objective(name: str, **changes) -> tuple[Any, ConfigDict]:
    """What a task (autoencoder, autoencoder_dit, motion, video, video_dit) learns, and its config;
    without data."""
    task, _, kind = name.partition("_")
    size = "tiny_dit" if kind else "tiny"
    renderer = build(RendererConfig, autoencoder_config(None, size).renderer.to_dict())
    if task == "autoencoder":
        config, renderer = autoencoder_config(None, size, **changes), None
    elif task == "motion":
        config = motion_config(None, Path(), **changes)
    else:
        config = video_config(None, Path(), **changes)
    return make_objective(config, renderer), config


def random_examples(objective, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch that looks like one of the objective's data: noise."""
    draw = np.random.default_rng(seed)

    def rows(shape):
        shape, dtype = (count, *shape.shape), shape.dtype
        if dtype == np.uint8:
            return draw.integers(0, 256, shape).astype(np.uint8)
        if dtype == np.bool_:
            return draw.random(shape) < 0.8
        return draw.uniform(0.2, 0.8, shape).astype(np.float32)

    return {name: rows(shape) for name, shape in objective.example_shapes.items()}


WAV2VEC2 = Wav2Vec2Config(
    conv_channels=8,
    width=16,
    layers=2,
    heads=2,
    feed_forward=16,
    position_kernel=4,
    position_groups=2,
)


def wav2vec2_file(path: Path, seed: int = 0) -> Wav2Vec2:
    """Writes a small random wav2vec2 as the converter would; returns the network."""
    network = with_random_weights(lambda rngs: Wav2Vec2(WAV2VEC2, rngs=rngs), seed)
    weights = {"params": nnx.to_pure_dict(nnx.state(network))}
    save_weights(path, weights, {"kind": "wav2vec2", "wav2vec2": dataclasses.asdict(WAV2VEC2)})
    return network


def random_weights(task, seed: int):
    """Parameters as the task has them, drawn so that signals keep their size and none is zero."""
    draw = np.random.default_rng(seed)

    def one(path, leaf):
        kernel, scale = leaf.ndim > 1, path[-1].key == "scale"
        deviation = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if kernel else 0.1
        return (scale + draw.normal(0, deviation, leaf.shape)).astype(np.float32)

    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(one, shapes)


def renderer_file(factory) -> Path:
    """Random weights of the image half, as the autoencoder exports them."""
    path = factory.getbasetemp() / "weights" / "renderer.safetensors"
    if not path.exists():
        task = make_task(autoencoder_config(factory))
        task.export(random_weights(task, 1), task.frozen, path)
    return path


def checkpoint(factory) -> Path:
    """A folder of weights as generation opens it: a renderer with temporal layers, and motion."""
    folder = factory.getbasetemp() / "checkpoint"
    if not folder.exists():
        image = renderer_file(factory)
        for name, config in (("renderer", video_config), ("motion", motion_config)):
            task = make_task(config(factory, image))
            task.export(random_weights(task, 2), task.frozen, folder / f"{name}.safetensors")
    return folder


def losses(workdir: Path) -> np.ndarray:
    """The loss of every step of a training."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return np.array([row["loss"] for row in rows if "loss" in row])


def stopped_at(workdir: Path, step: int, copy_to: Path) -> Path:
    """A copy of a training as a kill right after the checkpoint of `step` would leave it."""
    shutil.copytree(workdir / "checkpoints" / str(step), copy_to / "checkpoints" / str(step))
    shutil.copy(workdir / "metrics.jsonl", copy_to / "metrics.jsonl")
    return copy_to


def assert_the_same_bits_after_a_stop(config, task, trained: Path, folder: Path) -> None:
    """A training killed at half its steps ends with the weights and losses of `trained`."""
    workdir = stopped_at(trained, config.steps // 2, folder)
    assert train(config, task, workdir) == config.steps
    files = (workdir / "model.safetensors", trained / "model.safetensors")
    assert files[0].read_bytes() == files[1].read_bytes()
    np.testing.assert_array_equal(losses(workdir), losses(trained))
