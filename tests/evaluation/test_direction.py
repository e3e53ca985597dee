"""A performer that does what it is told, and shows nothing else, is measured as one."""

from types import SimpleNamespace

import numpy as np
import pytest
from evaluation.flat import clip

from xactor_jax.data.audio_features import MelConfig
from xactor_jax.data.direction import ANGLE, COLUMNS, FLAGS, WIDTH
from xactor_jax.evaluation import direction
from xactor_jax.evaluation.drift import Readers
from xactor_jax.motion_sampler import MotionSampling

FRAMES = 120


def actor(seed):
    draw = np.random.default_rng(seed)
    emotion = np.repeat(draw.permutation(5)[:4], 30).astype(np.int8)
    return clip(
        f"take{seed}",
        np.full(FRAMES, 100),
        source="actor",
        pose=np.cumsum(draw.normal(size=(FRAMES, 5)), axis=0).astype(np.float32) / 50,
        expression=np.zeros((FRAMES, 57), np.float16),
        gaze=np.zeros((FRAMES, 2), np.float32),
        blink=(np.arange(FRAMES) % (20 + seed) < 3).astype(np.float32),
        emotion=emotion,
        intensity=np.where(emotion > 0, 0.9, 0).astype(np.float32),
    )


class Obedient:
    """Latents are what is told: yaw, pitch, blink and emotion; what is free is noise."""

    def __init__(self, sampler, reference, key, *, sampling, direction):
        assert reference.shape == (1, 8)
        self.direction = direction

    def act(self, features):
        rows = np.random.default_rng(0).normal(size=(len(features), 8))
        if self.direction is None:
            return rows
        told = self.direction.frames(0, len(features) + 5)  # a chunk may end after the voice
        assert told.shape == (len(features) + 5, WIDTH) and not told[len(features) :].any()
        told = told[: len(features)]
        for k, kind in enumerate(("yaw", "pitch", "blink")):
            if told[:, FLAGS[kind]].all():
                rows[:, k] = told[:, COLUMNS[kind]][:, 0]
        if told[:, FLAGS["emotion"]].all():
            rows[:, 4:8] = told[:, COLUMNS["emotion"]]
        return rows


@pytest.fixture(scope="module")
def readers():
    draw = np.random.default_rng(1)
    latents = draw.normal(size=(400, 8))
    emotion = np.arange(400) % 5
    latents[:, 4:] = 0.9 * (np.arange(1, 5) == emotion[:, None])
    targets = {"yaw": latents[:, 0] * ANGLE, "pitch": latents[:, 1] * ANGLE, "blink": latents[:, 2]}
    return Readers.fit(latents, targets, emotion)


def test_the_obedient_follow_and_the_free_do_not(readers, monkeypatch):
    monkeypatch.setattr(direction, "Acting", Obedient)
    clips, done = [actor(n) for n in range(3)], []
    sampler = SimpleNamespace(hearing=MelConfig(bands=4, hops=1))
    found = direction.followed(
        clips, [np.zeros((FRAMES, 8))] * 3, sampler, MotionSampling(), readers, 0, done.append
    )
    assert sum(done) == 5 * 3 and found["n"] == {"voices": 3, "frames": 3 * FRAMES}
    for name in ("yaw", "pitch", "blink"):
        assert found[name] == pytest.approx(1, abs=1e-3)
        assert abs(found[f"{name}_free"]) < 0.3
    assert found["emotion"] == 1
    assert found["emotion_free"] < 0.6
