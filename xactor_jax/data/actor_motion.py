"""The motion of one take: everything that moves, frame by frame, without a face to show it on."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int16
from scipy.ndimage import gaussian_filter1d

from xactor_jax.data.actor_script import emotion_track, perform, voiced_track, write_script
from xactor_jax.data.actor_speech import Phoneme, Voice, choose_voice, speaker
from xactor_jax.data.actor_visemes import (
    close_lips,
    coefficients,
    columns,
    mouth_track,
)
from xactor_jax.data.facekit import EXPRESSIONS
from xactor_jax.data.shards import FRAME_RATE

_FACES = np.stack(
    [
        coefficients(),
        coefficients(mouthSmile=0.75, cheekRaiser=0.6, eyeSquint=0.3, browOuterUp=0.25),
        coefficients(mouthFrown=0.75, browInnerUp=1.0, eyeBlink=0.2, mouthShrugLower=0.2),
        coefficients(browDown=1.0, noseSneer=0.7, eyeSquint=0.35, mouthFrown=0.2, mouthUpperUp=0.1),
        coefficients(browInnerUp=0.9, browOuterUp=0.9, eyeWide=0.8, jawOpen=0.08),
    ]
)
# Yaw, pitch, roll that go with a fully felt emotion, radians.
_CARRIAGE = np.array(
    [[0, 0, 0], [0, -0.03, 0.03], [0, 0.10, 0.03], [0, 0.05, 0], [0, -0.06, 0]], np.float32
)
_LIMITS = np.radians([22, 13, 9]).astype(np.float32)  # yaw, pitch, roll
_FULL_LOOK = np.radians(30)  # gaze at which the lids follow with a coefficient of 1
_BLINK = np.array([0.35, 1.0, 1.0, 0.7, 0.3, 0.1], np.float32)  # shut in 2 frames, open in 4


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """A take without an identity: `t` frames at 25 per second and 640 samples of sound for each.

    Pose is yaw (positive to the picture's right), pitch (positive nods down) and roll (positive
    tilts the crown to the left), radians, then right and up in fractions of the view. Gaze is right
    and up in the head's frame, radians. Blink is 0 open to 1 shut.
    """

    name: str
    audio: Int16[np.ndarray, " samples"]
    phonemes: tuple[Phoneme, ...]
    expression: Float32[np.ndarray, "t 57"]
    pose: Float32[np.ndarray, "t 5"]
    gaze: Float32[np.ndarray, "t 2"]
    blink: Float32[np.ndarray, " t"]
    emotion: Int8[np.ndarray, " t"]
    intensity: Float32[np.ndarray, " t"]
    voiced: Bool[np.ndarray, " t"]  # where the voice gives the emotion away

    def __len__(self) -> int:
        return len(self.expression)


def make_motion(
    name: str,
    seed: tuple[int, ...],
    seconds: float,
    voice: Voice | None = None,
    take_seconds: float | None = None,
) -> Motion:
    """The Motion of `seconds` that follows from `seed`, spoken by `voice` (default: a random one).

    take_seconds: emotions are held as long as in a take of this length; None: as in this one's.

    Raises:
      InputError: espeak-ng is missing or lacks the voice.
    """
    random = np.random.default_rng(seed)
    frames = max(round(seconds * FRAME_RATE), 1)
    seconds = frames / FRAME_RATE
    voice = voice or choose_voice(random)
    script = write_script(random, seconds, take_seconds)
    with speaker(int(random.integers(1, 2**31))) as espeak:
        performance = perform(script, seconds, voice, espeak, random)
    audio = _recorded(performance.speech.audio, random)
    strengths, emotion, intensity = emotion_track(performance, frames)
    phonemes = performance.speech.phonemes
    times = np.arange(frames) / FRAME_RATE
    mouth, shut = mouth_track(
        phonemes, performance.speech.audio, times, strength=random.uniform(0.85, 1.1)
    )
    pose = _head(frames, phonemes, strengths, random)
    gaze = _gaze(frames, pose, random)
    lids, saccade_lids = _blinks(frames, gaze, random), _look(gaze)
    face = mouth + strengths @ _FACES + saccade_lids + _idle(frames, random)
    face[:, columns("mouthStretch")] *= 1 - 0.5 * strengths[:, 1:2]  # a smile already spreads
    face = close_lips(np.clip(face, 0, 1), shut)
    shut_eyes = columns("eyeBlink")
    face[:, shut_eyes] = np.maximum(face[:, shut_eyes], lids[:, None])
    face[:, columns("eyeWide", "eyeSquint")] *= 1 - lids[:, None]
    face[:, columns("eyeLookDown", "eyeLookUp")] *= 1 - lids[:, None]
    return Motion(
        name,
        audio,
        phonemes,
        face.astype(np.float32),
        pose,
        gaze,
        face[:, shut_eyes].mean(1).astype(np.float32),
        emotion,
        intensity,
        voiced_track(performance, frames),
    )


def _recorded(audio: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The take as a microphone hears it: one gain for all of it, and a faint hiss. int16."""
    gain = 0.9 / max(float(np.abs(audio).max()), 0.3) * 10 ** random.uniform(-0.4, 0)
    hiss = gaussian_filter1d(random.normal(0, 1, len(audio)), 1.0)
    noisy = gain * (audio + hiss * 10 ** random.uniform(-3.6, -2.6))
    return np.clip(np.round(noisy * 32767), -32768, 32767).astype(np.int16)


def _drift(frames: int, seconds: float, count: int, random: np.random.Generator) -> np.ndarray:
    """Smooth random curves (t, count) of unit variance that change over about `seconds`."""
    width = seconds * FRAME_RATE
    margin = int(4 * width) + 1
    noise = random.normal(0, 1, (frames + 2 * margin, count))
    smooth = gaussian_filter1d(noise, width, axis=0)[margin : margin + frames]
    return (smooth * np.sqrt(2 * np.sqrt(np.pi) * width)).astype(np.float32)


def _head(frames, phonemes, strengths, random) -> np.ndarray:
    """Slow drift, faster sway, nods on some stressed syllables, and the carriage of an emotion."""
    slow, sway = _drift(frames, 1.2, 5, random), _drift(frames, 0.3, 5, random)
    scale = np.radians([12.0, 6.0, 4.0]) * random.uniform(0.5, 1.3)
    pose = np.zeros((frames, 5), np.float32)
    pose[:, :3] = slow[:, :3] * scale + sway[:, :3] * scale * 0.15
    pose[:, :3] += strengths @ _CARRIAGE + random.normal(0, 1, 3) * np.radians([4, 2, 1.5])
    pose[:, 3:] = slow[:, 3:] * [0.014, 0.008] + sway[:, 3:] * 0.0015
    times = np.arange(frames) / FRAME_RATE
    pose[:, 4] += 0.002 * np.sin(2 * np.pi * 0.27 * times + random.uniform(0, 6))  # breathing
    for phoneme in phonemes:
        if phoneme.stressed and random.random() < 0.5:
            nod = np.exp(-0.5 * ((times - phoneme.start - 0.05) / 0.11) ** 2)
            pose[:, 1] += nod * np.radians(random.uniform(0.8, 3))
    # Soft limits: the tangent keeps the head in range without a visible stop.
    pose[:, :3] = _LIMITS * np.tanh(pose[:, :3] / _LIMITS)
    pose[:, 3:] = 0.04 * np.tanh(pose[:, 3:] / 0.04)
    return pose.astype(np.float32)


def _gaze(frames: int, pose: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Fixations with saccades between them, mostly on the camera, steady while the head turns."""
    target = np.zeros((frames, 2), np.float32)
    at = 0
    while at < frames:
        until = at + max(int(random.gamma(2.0, 0.6) * FRAME_RATE), 8)
        away = random.random() < 0.35
        target[at:until] = random.normal(0, 1, 2) * (np.radians([11, 6]) if away else 0.02)
        at = until
    # In the head's frame: what the eyes do to keep the target when the head has turned.
    counter = np.stack([-pose[:, 0], pose[:, 1]], 1) * 0.7
    gaze = target + counter
    limit = np.radians([28.0, 18.0])
    return np.clip(gaze, -limit, limit).astype(np.float32)


def _blinks(frames: int, gaze: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Blinks about every three and a half seconds, some of them with a large saccade."""
    lids = np.zeros(frames + len(_BLINK), np.float32)
    moved = np.linalg.norm(np.diff(gaze, axis=0, prepend=gaze[:1]), axis=1)
    large = np.flatnonzero(moved > np.radians(12)).tolist()
    starts = [i for i in large if random.random() < 0.3]
    at = random.uniform(0.3, 3.0) * FRAME_RATE
    while at < frames:
        starts.append(int(at))
        at += (0.8 + random.gamma(2.5, 1.2)) * FRAME_RATE
    for start in starts:
        lids[start : start + len(_BLINK)] = np.maximum(lids[start : start + len(_BLINK)], _BLINK)
    return lids[:frames]


def _look(gaze: np.ndarray) -> np.ndarray:
    """The lids and the skin around the eyes follow the gaze: (t,57)."""
    right, up = (gaze / _FULL_LOOK).T
    look = np.zeros((len(gaze), len(EXPRESSIONS)), np.float32)
    for names, amount in (
        (("eyeLookOut_L", "eyeLookIn_R"), right),  # _L is on the picture's right
        (("eyeLookIn_L", "eyeLookOut_R"), -right),
        (("eyeLookUp",), up),
        (("eyeLookDown",), -up),
    ):
        look[:, columns(*names)] = np.clip(amount, 0, 1)[:, None]
    return look


def _idle(frames: int, random: np.random.Generator) -> np.ndarray:
    """The small movements of a face at rest: brows, corners of the mouth, nostrils."""
    idle = np.zeros((frames, len(EXPRESSIONS)), np.float32)
    for name, size, seconds in (
        ("browInnerUp", 0.12, 0.5),
        ("browOuterUp", 0.10, 0.6),
        ("browDown", 0.10, 0.8),
        ("mouthSmile", 0.05, 1.0),
        ("mouthDimple", 0.06, 0.8),
        ("mouthLeft", 0.05, 0.7),
        ("mouthRight", 0.05, 0.7),
        ("noseSneer", 0.05, 0.6),
    ):
        idle[:, columns(name)] = np.clip(_drift(frames, seconds, 1, random) * size, 0, 3 * size)
    return idle
