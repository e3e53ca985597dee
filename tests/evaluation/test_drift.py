"""Measures of long acting, against closed forms and against scripts that are acted perfectly."""

import dataclasses

import numpy as np
import pytest
from evaluation.flat import FlatRenderer, actors

from xactor_jax.data.actor_motion import Motion
from xactor_jax.data.direction import COLUMNS, FLAGS
from xactor_jax.data.shards import open_shards, write_shards
from xactor_jax.evaluation import drift, drift_frames
from xactor_jax.evaluation.drift_bench import DriftBench
from xactor_jax.evaluation.plots import save_plots
from xactor_jax.evaluation.report import rows


def test_frechet_distance_of_gaussians_in_closed_form():
    draw = np.random.default_rng(0)
    root = draw.normal(size=(3, 3))
    covariance = root @ root.T
    mean = draw.normal(size=3)
    assert drift.frechet(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-6)
    assert drift.frechet(mean, covariance, mean + 2, covariance) == pytest.approx(12)
    # Of commuting covariances: the squared distance of their roots.
    assert drift.frechet(mean, np.diag([1.0, 4, 9]), mean, np.diag([4.0, 4, 1])) == pytest.approx(5)


def test_deviation_and_velocity_of_waves():
    frames = np.arange(1000)
    wave = 3 * np.stack([np.sin(2 * np.pi * frames / 25)] * 2, axis=1)
    wave[500:] += 100  # another place, minutes later, is no deviation within a window
    assert drift.deviation([wave]) == pytest.approx(3 / np.sqrt(2), rel=1e-3)
    # Of a sine of amplitude a and step s: a 2 sin(s / 2) / √2.
    expected = 3 * np.sqrt(2) * np.sin(np.pi / 25)
    assert drift.velocity([wave[:500]]) == pytest.approx(expected, rel=0.01)


def test_blinks_are_counted_once():
    lids = np.zeros(100)
    lids[10:13] = lids[40] = lids[41:44] = lids[90:] = 1
    assert drift.blinks(lids, 0.5) == 3


def script(seed, minutes):
    """Truth as a take has it, without sound; emotions change every ten seconds."""
    draw = np.random.default_rng(seed)
    frames = drift.MINUTE * minutes
    emotion = np.repeat(draw.integers(0, 5, frames // 250), 250).astype(np.int8)
    wave = np.sin(2 * np.pi * np.arange(frames) / 97)
    return Motion(
        "script",
        np.zeros(640 * frames, np.int16),
        (),
        np.abs(draw.normal(size=(frames, 57))).astype(np.float32),
        np.stack([0.2 * wave, 0.1 * wave, *np.zeros((3, frames))], axis=1),
        np.zeros((frames, 2)),
        (np.arange(frames) % 100 < 5).astype(np.float32),
        emotion,
        np.where(emotion > 0, 0.8, 0).astype(np.float32),
        np.arange(frames) % 250 < 100,
    )


def latents_of(motion):
    """Latents that say everything: the targets, and the emotion's place."""
    targets = np.stack(list(drift.targets_of(motion).values()), axis=1)
    return np.concatenate([targets, np.eye(5)[motion.emotion]], axis=1)


@pytest.fixture(scope="module")
def readers():
    motion = script(9, 1)
    return drift.Readers.fit(latents_of(motion), drift.targets_of(motion), motion.emotion)


def test_a_perfect_performance_is_measured_as_the_script(readers):
    voices = [script(n, 2) for n in range(3)]
    acted = np.stack([latents_of(voice) for voice in voices])
    minutes = drift.curves(acted, voices, readers, drift.Real.of(list(acted)))
    assert all(len(values) == 2 for values in minutes.values())
    np.testing.assert_allclose(minutes["mouth_r"], 1, atol=1e-3)
    np.testing.assert_allclose(minutes["emotion_held"], 1)
    np.testing.assert_allclose(minutes["emotion_announced"], 1)
    np.testing.assert_allclose(minutes["velocity_ratio"], 1, rtol=0.05)
    np.testing.assert_allclose(minutes["deviation_ratio"], 1, rtol=0.05)
    assert max(minutes["frechet"]) < 0.2  # minutes differ by the emotions that were drawn
    for name in ("yaw_range", "pitch_range", "blinks"):
        np.testing.assert_allclose(minutes[name], minutes[f"{name}_true"], rtol=0.05)
    assert minutes["blinks"][0] == pytest.approx(15, abs=1)


def test_repeated_minutes_differ_by_their_age_alone(readers):
    voices = [script(n, 3) for n in range(2)]
    bench = DriftBench(None, readers, None, 1.0, voices, None, (), None).repeating()
    assert [len(voice) for voice in bench.voices] == [3 * drift.MINUTE] * 2
    assert [len(voice.audio) for voice in bench.voices] == [len(voice.audio) for voice in voices]
    acted = np.stack([latents_of(voice) for voice in bench.voices])
    minutes = drift.curves(acted, bench.voices, readers, drift.Real.of(list(acted)))
    for name, values in minutes.items():
        np.testing.assert_allclose(values, values[0], rtol=1e-6, err_msg=name)
    first = drift.curves(acted[:, : drift.MINUTE], voices, readers, drift.Real.of(list(acted)))
    assert first["mouth_r"] == pytest.approx([1], abs=1e-3)  # that of the voices' own scripts


def test_fading_shows_in_the_last_minute(readers):
    voices = [script(n, 3) for n in range(2)]
    true = np.stack([latents_of(voice) for voice in voices])
    acted = true.copy()
    last = slice(2 * drift.MINUTE, None)
    acted[:, last] = 0.3 * (true[:, last] - true.mean(axis=(0, 1))) + true.mean(axis=(0, 1))
    acted[:, last, -5:] += 1
    minutes = drift.curves(acted, voices, readers, drift.Real.of(list(true)))
    found = drift.summary(minutes)
    assert minutes["blinks"][0] == pytest.approx(15, abs=1)
    assert minutes["blinks"][2] == 0
    assert found["frechet_ratio"] > 10
    assert found["deviation_least"] == pytest.approx(0.3, abs=0.05)
    assert found["velocity_least"] == pytest.approx(0.3, abs=0.05)
    assert found["deviation_most"] == pytest.approx(1, abs=0.05)


def test_faces_are_told_apart_and_blur_and_tint_are_seen():
    draw = np.random.default_rng(0)
    faces = draw.integers(0, 256, (4, 12, 12)).astype(np.float32)
    shown = faces[np.arange(80) % 4] + 10 * draw.normal(size=(80, 12, 12))
    names = [f"face{n % 4}" for n in range(80)]
    likeness = drift_frames.Likeness(shown.reshape(80, -1) / 255, names)
    crops = np.repeat(np.clip(shown, 0, 255).astype(np.uint8)[..., None], 3, axis=3)
    assert likeness.distance(crops[0:80:4], crops[4]) < 0.3
    assert 0.6 < likeness.distance(crops[0:80:4], crops[5]) < 1.6

    sharp = draw.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    flat = np.full_like(sharp, 128)
    assert drift_frames.sharpness(flat) == 0
    grey = np.zeros((1, 9, 9, 3), np.uint8)
    grey[0, 4, 4] = 90  # the Laplacian of a point: -4 there, 1 at its four neighbours
    assert drift_frames.sharpness(grey) == pytest.approx(90**2 * 20 / 81)


def test_real_clips_are_read_and_the_section_is_reported(tmp_path, readers):
    silent = np.zeros(60, np.float32)
    truth = {"blink": silent, "intensity": silent + 0.5, "emotion": np.int8(np.arange(60) % 2)}
    written = [dataclasses.replace(clip, **truth) for clip in actors(6)]
    write_shards(tmp_path / "actors", {"test": written})
    shards, renderer = open_shards(str(tmp_path / "actors"), "test"), FlatRenderer()
    counted = []
    clips = drift.real_clips(shards, renderer, counted.append)
    assert len(clips) == len(shards) == len(counted)
    fitted = drift.fit_readers(shards, renderer, counted.append)
    jaw = np.asarray(clips[0][:, 0])  # brightness is how far the jaw is open
    assert abs(np.corrcoef(fitted.read("jaw", clips[0]), jaw)[0, 1]) > 0.99
    assert 0 <= drift.recognised(fitted, shards, clips) <= 1

    voices = [script(n, 2) for n in range(2)]
    acted = np.stack([latents_of(voice) for voice in voices])
    minutes = drift.curves(acted, voices, readers, drift.Real.of(list(acted)))
    minutes |= {name: [0.1, 0.2] for name in ("identity", "colour", "sharpness")}
    section = drift.summary(minutes) | {"minutes": minutes, "n": {"voices": 2}, "emotion_real": 1.0}
    found = {row["what"]: row["met"] for row in rows({"drift": section})}
    assert found["held emotions recognised"] is True
    assert save_plots(tmp_path, "drift", section)[0].stat().st_size > 0


def test_announced_emotions_are_told_and_held_ones_are_not(readers):
    voices = [script(n, 2) for n in range(2)]
    rows = drift.announcements(voices).rows
    for row, voice in zip(rows, voices, strict=True):
        np.testing.assert_array_equal(row[:, FLAGS["emotion"]], voice.voiced)
        told = row[:, COLUMNS["emotion"]]
        felt = voice.voiced & (voice.emotion > 0)
        np.testing.assert_array_equal(told.argmax(axis=1)[felt] + 1, voice.emotion[felt])
        np.testing.assert_allclose(told.sum(axis=1), 0.8 * felt, rtol=1e-6)
    # A performer that shows what it is told and nothing when it is not told anything.
    acted = np.stack([latents_of(voice) for voice in voices])
    for latents, voice in zip(acted, voices, strict=True):
        nothing = latents_of(dataclasses.replace(voice, emotion=voice.emotion * 0))
        latents[~voice.voiced] = nothing[~voice.voiced]
    found = drift.told_emotions(acted, voices, readers)
    assert found == {"told_announced": [1.0, 1.0], "told_held": [0.0, 0.0]}


def test_only_the_voice_that_announces_counts_as_announcing(readers):
    voice = script(0, 1)
    latents = latents_of(voice)[None]
    latents[:, ~voice.voiced] = latents_of(dataclasses.replace(voice, emotion=voice.emotion * 0))[
        ~voice.voiced
    ]
    found = drift._emotions(readers.emotion, latents, [voice], slice(0, drift.MINUTE))
    assert found == {"emotion_announced": 1.0, "emotion_held": 0.0}
