"""The motion transformer learns from clips, goes on where it stopped, and can be opened to act."""

import json
import shutil

import jax
import numpy as np
import pytest
from small_models import (
    assert_the_same_bits_after_a_stop,
    clips,
    losses,
    motion_config,
    renderer_file,
    small_objective,
    video_config,
    wav2vec2_file,
)
from small_models import quick_compilation as quick_compilation

from xactor_jax.data.features import add_features
from xactor_jax.data.latents import driving_crops
from xactor_jax.data.shards import open_shards, write_shards
from xactor_jax.errors import InputError
from xactor_jax.models.motion_transformer import MotionTransformer
from xactor_jax.motion_sampler import MotionSampler, MotionSampling
from xactor_jax.release import PortraitRenderer
from xactor_jax.tasks import forced_passes, make_task
from xactor_jax.tasks.forced_passes import CopyDraws, Rows
from xactor_jax.tasks.motion import correlation
from xactor_jax.train import train


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return motion_config(tmp_path_factory, renderer_file(tmp_path_factory))


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


@pytest.fixture(scope="module")
def trained(config, task, tmp_path_factory):
    """The workdir of forty uninterrupted steps."""
    workdir = tmp_path_factory.mktemp("motion")
    assert train(config, task, workdir) == 40
    return workdir


def test_the_loss_falls(trained):
    loss = losses(trained)
    assert len(loss) == 40
    # Noise levels are drawn anew each step; ten steps average them.
    assert loss[-10:].mean() < 0.8 * loss[:5].mean()


def test_a_stopped_training_ends_at_the_same_bits(config, task, trained, tmp_path):
    assert_the_same_bits_after_a_stop(config, task, trained, tmp_path)


def test_features_made_beforehand_are_trained_on(tmp_path_factory, tmp_path):
    renderer = renderer_file(tmp_path_factory)
    folder = shutil.copytree(clips(tmp_path_factory)[0], tmp_path / "footage")
    add_features(folder, str(renderer))
    told = {"data.folders": (str(folder),), "data.cache": str(tmp_path / "cache")}
    with pytest.raises(InputError, match="features-train: made with another hearing"):
        make_task(motion_config(tmp_path_factory, renderer, **told))
    same = {"mel.bands": 40, "mel.hops": 4}
    task = make_task(motion_config(tmp_path_factory, renderer, **told, **same))
    assert not (tmp_path / "cache").exists()
    [first, _] = task.examples.tracks
    crops = driving_crops(open_shards(folder, "train")[0], 32)
    expected = PortraitRenderer(renderer).encode(crops)
    np.testing.assert_array_equal(first.latents, expected)  # the same program on the same crops


def test_performers_can_hear_by_a_converted_wav2vec2(tmp_path_factory, tmp_path):
    renderer, speech = renderer_file(tmp_path_factory), tmp_path / "wav2vec2.safetensors"
    wav2vec2_file(speech)
    told = {"wav2vec2": str(speech), "steps": 3, "save_every": 3, "evaluate_every": 3}
    with pytest.raises(InputError, match="band_shift and gain"):
        make_task(motion_config(tmp_path_factory, renderer, **told))
    told |= {"data.windows.band_shift": 0.0, "data.windows.gain": 0.0}
    config = motion_config(tmp_path_factory, renderer, **told)
    task = make_task(config)
    assert train(config, task, tmp_path / "run") == 3

    motion = (tmp_path / "run" / "model.safetensors").rename(tmp_path / "motion.safetensors")
    sampler = MotionSampler.open(motion)
    assert sampler.config.audio == sampler.hearing.width == 2 * 16
    assert repr(sampler.hearing) == repr(task.hearing)
    wav2vec2_file(speech, seed=1)
    with pytest.raises(InputError, match="another wav2vec2"):
        MotionSampler.open(motion)
    speech.unlink()
    with pytest.raises(InputError, match="convert wav2vec2"):
        MotionSampler.open(motion)


def test_held_out_clips_are_scored_and_shown(trained):
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    for name in ("right", "wrong"):
        assert -1 <= last[f"evaluate/footage/correlation_{name}"] <= 1
    assert last["evaluate/footage/deviation_ratio"] > 0
    # One motion alone is held out of the actors: there is no other voice to compare with.
    assert not any(name.startswith("evaluate/actor") for name in last)
    assert (trained / "samples" / "step_00000040" / "latents.png").stat().st_size > 0


def test_the_weights_open_as_a_sampler(config, task, trained, tmp_path_factory):
    sampler = MotionSampler.open(trained / "model.safetensors")
    assert (sampler.config, sampler.hearing, sampler.flow) == (task.config, task.hearing, task.flow)
    assert sampler.sampling == MotionSampling(**config.sampling)
    # The statistics are those of the training clips: both of footage, one of each actors' pair.
    renderer = PortraitRenderer(config.renderer)
    footage, actors = (open_shards(folder, "train") for folder in clips(tmp_path_factory))
    shown = [footage[0], footage[1], actors[0]]
    tracks = [renderer.encode(driving_crops(clip, 32)) for clip in shown]
    latents = np.concatenate(tracks)
    within = np.sqrt(sum(((t - t.mean(axis=0)) ** 2).sum(axis=0) for t in tracks) / len(latents))
    np.testing.assert_allclose(sampler.mean, latents.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(sampler.spread, latents.std(axis=0), atol=1e-5)
    floored = np.maximum(within, within.mean() / 2)
    np.testing.assert_allclose(sampler.deviation, floored, atol=1e-5)


def test_correlation_is_that_of_the_curves():
    time = np.linspace(0, 6 * np.pi, 301)
    truth = np.stack([np.sin(time), 3 * np.cos(time)], axis=1)[None]
    assert correlation(2 * truth + 5, truth) == pytest.approx(1)
    assert correlation(-truth, truth) == pytest.approx(-1)
    # Whole periods: sines and cosines are uncorrelated but for the doubled end point.
    assert correlation(truth[..., ::-1], truth) == pytest.approx(0, abs=0.02)
    # One of the two curves is right; it carries 9/10 of the variance.
    half = truth * [0, 1] + truth[..., ::-1] * [1, 0]
    assert correlation(half, truth) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("make_config", [motion_config, video_config])
def test_weights_that_cannot_be_built_on_are_named(make_config, trained, tmp_path_factory):
    for renderer, message in (
        ("", r"config\.renderer is empty"),
        ("nowhere.safetensors", r"nowhere\.safetensors: no such weights file"),
        (trained / "model.safetensors", r"model\.safetensors: weights of a motion, not"),
    ):
        with pytest.raises(InputError, match=message):
            make_task(make_config(tmp_path_factory, renderer))


def test_held_out_clips_are_needed(config, tmp_path, tmp_path_factory):
    clip = open_shards(clips(tmp_path_factory)[0], "train")[0]
    write_shards(tmp_path / "clips", {"train": [clip], "test": []})
    config = config.copy_and_resolve_references()
    config.data.folders = (str(tmp_path / "clips"),)
    with pytest.raises(InputError, match="no test clip of 50 frames"):
        make_task(config)


@pytest.mark.parametrize(
    ("validation", "measured"), [([1, 2], ["clip1", "clip2"]), ([1], ["clip2", "clip3"])]
)
def test_validation_is_measured_where_voices_can_be_compared(
    validation, measured, tmp_path, tmp_path_factory
):
    folder, renderer = tmp_path / "clips", renderer_file(tmp_path_factory)
    parts = [open_shards(clips(tmp_path_factory)[0], split) for split in ("train", "test")]
    every = [part[i] for part in parts for i in range(2)]
    splits = {"train": [0], "validation": validation, "test": range(1 + len(validation), 4)}
    write_shards(folder, {name: [every[n] for n in chosen] for name, chosen in splits.items()})
    add_features(folder, str(renderer))
    told = {"data.folders": (str(folder),), "data.cache": str(tmp_path / "cache")}
    told |= {"mel.bands": 40, "mel.hops": 4}
    task = make_task(motion_config(tmp_path_factory, renderer, **told))
    assert [track.clip for track in task.held_out] == measured
    assert not (tmp_path / "cache").exists()  # the features beside the shards are of each split


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"motion.context": 22}, "context=22: use a multiple of chunk=5"),
        ({"forcing.in_flight": 0}, "in_flight=0: use 1 or more"),
        ({"sampling.chunks_in_flight": 3}, "10 steps are not shared evenly by 3 chunks"),
        ({"sampling.commit": "scale"}, "commit 'scale': use one of scaled"),
        ({"forcing.clean_history": 0.0, "loss.own_history": 0.5}, "needs a share of"),
        ({"forcing.per_frame": 0.5, "loss.fused_snr": True}, "set config.forcing.per_frame=0"),
        ({"motion.chunk": 20, "sampling.history_guidance": 2.0}, "one chunk has no history: use"),
    ],
)
def test_settings_that_do_not_go_together_are_told_before_training(changes, message):
    with pytest.raises(InputError, match=message):
        small_objective("motion", **changes)


def test_a_second_evaluation_compiles_nothing(task, trained):
    params = task.init(jax.random.key(0))
    task.evaluate(params, task.frozen, jax.random.key(0))
    compilations = MotionSampler.next_chunk._cache_size()
    task.evaluate(params, task.frozen, jax.random.key(1))
    assert MotionSampler.next_chunk._cache_size() == compilations


@pytest.mark.parametrize(
    "changes",
    [
        {"forcing.clean_history": 0.0, "forcing.per_frame": 0.5},  # no clean copy: half the tokens
        {"loss.own_history": 1.0, "loss.own_history_steps": 2, "loss.fused_snr": True},
    ],
)
def test_other_ways_of_forcing_lower_the_loss_too(changes, config, tmp_path, tmp_path_factory):
    config = motion_config(tmp_path_factory, config.renderer, **changes)
    assert train(config, make_task(config), tmp_path) == 40
    loss = losses(tmp_path)
    assert loss[-10:].mean() < 0.8 * loss[:5].mean()


def test_rows_without_copies_are_told_what_masks_would_leave_them(config, task, monkeypatch):
    """Two passes, with and without copies, against one in which masks tell the rows apart."""
    shapes = {name: (8, *shape.shape) for name, shape in task.example_shapes.items()}
    draw = np.random.default_rng(0)
    batch = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    batch["audio_known"] = draw.uniform(size=shapes["audio_known"]) < 0.9
    params = jax.tree.map(
        lambda p: p + draw.normal(0, 0.1, p.shape).astype(p.dtype), task.init(jax.random.key(0))
    )
    tokens, call = [], MotionTransformer.__call__

    def watched(self, z, *others, **told):
        tokens.append(z.shape[:2])
        return call(self, z, *others, **told)

    monkeypatch.setattr(MotionTransformer, "__call__", watched)

    def loss(evenly):
        monkeypatch.setattr(forced_passes, "share_evenly", lambda rows: evenly)
        compute = jax.jit(jax.value_and_grad(lambda p: task.loss(p, task.frozen, batch, key)[0]))
        return compute(params)

    key = jax.random.key(2)
    (dealt, dealt_gradient), (masked, masked_gradient) = loss(True), loss(False)
    t = task.config.context
    assert tokens == [(4, 2 * t), (4, t), (8, 2 * t)]
    # Sums of fp32 in another order, of which a gradient has far more.
    np.testing.assert_allclose(dealt, masked, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-7),
        dealt_gradient,
        masked_gradient,
    )


def test_near_truth_of_a_network_that_knows_the_truth_is_the_truth(task):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2, 20, task.config.latent)).astype(np.float32)
    seen = []

    def oracle(tokens, level, *_, **told):
        seen.append(np.asarray(level))
        assert told["direction"].shape == told["audio_heard"].shape == (2, 40, 1)
        return np.tile(x, (1, 2, 1))

    told = dict.fromkeys(("audio_heard", "direction"), np.zeros((2, 20, 1)))
    levels = task.forcing.levels(jax.random.key(0), 2, 4, 5)
    rows = Rows(x, x, levels, CopyDraws.of(jax.random.key(1), x), told)
    found = task.passes.near_truth(oracle, rows)
    np.testing.assert_allclose(found, x, atol=1e-5)
    first = seen[0][:, 4:]  # one a chunk, of four noisy ones after as many clean ones
    assert np.all((first >= 0.3) & (first <= 0.7)) and np.all(first == first[:, :1])
    for n, level in enumerate(seen):  # the copy before it is clean, and levels fall evenly
        assert not level[:, :4].any()
        np.testing.assert_allclose(level[:, 4:], first * (1 - n / 3), rtol=1e-5)
    assert len(seen) == 3
