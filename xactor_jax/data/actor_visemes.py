"""From phonemes to the mouth: one target a sound, blended in time, closed where lips must close."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from scipy.ndimage import gaussian_filter1d

from xactor_jax.data.actor_speech import SAMPLE_RATE, Phoneme
from xactor_jax.data.facekit import EXPRESSION_INDEX, EXPRESSIONS

RATE = 200
"""Steps a second at which the mouth is computed before it is sampled at frame times."""

# The mouth of each sound; a name without side stands for both sides. Teeth, tongue and lips as in
# the usual viseme charts (MPEG-4 and the 15 of Oculus), tuned on ICT-FaceKit by eye.
_SHAPES: dict[str, dict[str, float]] = {
    "rest": {},
    "closed": {
        "mouthPress": 0.35, "mouthRollLower": 0.2, "mouthRollUpper": 0.2, "mouthClose": 0.02,
    },
    "lip-teeth": {"jawOpen": 0.07, "mouthRollLower": 0.6, "mouthUpperUp": 0.35},
    "tongue-teeth": {"jawOpen": 0.16, "mouthLowerDown": 0.3, "mouthUpperUp": 0.1},
    "tongue-ridge": {"jawOpen": 0.12, "mouthUpperUp": 0.2, "mouthLowerDown": 0.3},
    "tongue-back": {"jawOpen": 0.19, "mouthLowerDown": 0.15, "mouthUpperUp": 0.05},
    "hush": {"jawOpen": 0.08, "mouthFunnel": 0.6, "mouthShrugUpper": 0.2, "mouthLowerDown": 0.1},
    "hiss": {"jawOpen": 0.04, "mouthStretch": 0.35, "mouthLowerDown": 0.4, "mouthUpperUp": 0.2},
    "r": {"jawOpen": 0.13, "mouthFunnel": 0.35, "mouthPucker": 0.25},
    "wide open": {"jawOpen": 0.6, "mouthLowerDown": 0.35, "mouthUpperUp": 0.2},
    "open": {"jawOpen": 0.4, "mouthStretch": 0.35, "mouthLowerDown": 0.35, "mouthUpperUp": 0.2},
    "spread": {
        "jawOpen": 0.2, "mouthStretch": 0.4, "mouthSmile": 0.2, "mouthLowerDown": 0.3,
        "mouthUpperUp": 0.1,
    },
    "round open": {"jawOpen": 0.4, "mouthFunnel": 0.55, "mouthPucker": 0.2},
    "round": {"jawOpen": 0.15, "mouthPucker": 0.85, "mouthFunnel": 0.25},
    "middle": {"jawOpen": 0.26, "mouthLowerDown": 0.2, "mouthUpperUp": 0.1},
}  # fmt: skip
_SOUNDS = {
    "closed": "pbm",
    "lip-teeth": "fv",
    "tongue-teeth": "θð",
    "tongue-ridge": "tdɾlnɫʔ",
    "tongue-back": "kɡgŋhxç",
    "hush": "ʃʒ",
    "hiss": "sz",
    "r": "ɹrɜɚʍ",
    "wide open": "ɑaæ",
    "open": "ɛe",
    "spread": "iɪj",
    "round open": "ɔoɒ",
    "round": "uʊwʉy",
    "middle": "ʌəɐ",
}
_VISEME = {sound: name for name, sounds in _SOUNDS.items() for sound in sounds}
_MARKS = "ˈˌː̩̃ʲʰ̯̍‍ "

_ANTICIPATION = 0.04  # seconds by which the mouth moves ahead of the sound
_JAW, _ROUNDING, _LIPS = 0.035, 0.06, 0.03  # widths of the blends, seconds
_ROUNDED = ("mouthPucker", "mouthFunnel")
_CLOSING_RAMP = 0.06
# At 25 frames a second a shorter closure could fall between two frames.
_SHORTEST_CLOSURE = 0.05
_OPENING = ("mouthLowerDown", "mouthUpperUp", "mouthFunnel", "mouthShrugUpper", "mouthStretch")
_OPENING_AND_JAW = ("jawOpen", *_OPENING)


def coefficients(**named: float) -> Float32[np.ndarray, " 57"]:
    """Expression coefficients by name; a name without its side sets both sides."""
    row = np.zeros(len(EXPRESSIONS), np.float32)
    for name, value in named.items():
        for full in (name,) if name in EXPRESSION_INDEX else (f"{name}_L", f"{name}_R"):
            row[EXPRESSION_INDEX[full]] = value
    return row


@functools.cache
def columns(*names: str) -> np.ndarray:
    """Column numbers of the named coefficients, both sides of those that have sides."""
    return np.concatenate([np.flatnonzero(coefficients(**{name: 1.0})) for name in names])


def visemes(ipa: str) -> list[str]:
    """The mouth shapes of a phoneme in order: two for a diphthong, "rest" for silence.

    Names are those of the shapes in this file; an unknown sound is a relaxed, half open mouth.
    """
    letters = [letter for letter in ipa if letter not in _MARKS]
    if not letters:
        return ["rest"]
    shapes = [_VISEME.get(letter, "middle") for letter in letters]
    return [shape for i, shape in enumerate(shapes) if i == 0 or shape != shapes[i - 1]]


def closures(phonemes: Sequence[Phoneme]) -> list[tuple[float, float]]:
    """The times, in seconds, at which p, b or m keep the lips shut."""
    shut = []
    for phoneme in phonemes:
        if visemes(phoneme.ipa)[0] == "closed":
            middle = (phoneme.start + phoneme.end) / 2
            half = max(0.4 * (phoneme.end - phoneme.start), _SHORTEST_CLOSURE / 2)
            shut.append((middle - half, middle + half))
    return shut


def closure_curve(phonemes: Sequence[Phoneme], times: np.ndarray) -> Float32[np.ndarray, " t"]:
    """How firmly the lips are shut, 0 to 1, at `times` in seconds; 1 throughout each closure."""
    curve = np.zeros(len(times), np.float32)
    for start, end in closures(phonemes):
        near = slice(*np.searchsorted(times, (start - _CLOSING_RAMP, end + _CLOSING_RAMP)))
        outside = np.maximum(np.maximum(start - times[near], times[near] - end), 0)
        ramp = 0.5 + 0.5 * np.cos(np.pi * np.minimum(outside / _CLOSING_RAMP, 1))
        curve[near] = np.maximum(curve[near], ramp)
    return curve


def loudness(audio: np.ndarray, times: np.ndarray) -> Float32[np.ndarray, " t"]:
    """Sound level at `times` in seconds relative to the loud parts of the audio, 0 to about 1."""
    hop = SAMPLE_RATE // RATE
    padded = np.pad(audio.astype(np.float64), (0, -len(audio) % hop))
    power = gaussian_filter1d((padded.reshape(-1, hop) ** 2).mean(1), 0.02 * RATE)
    level = np.sqrt(power / (np.percentile(power, 95) + 1e-12))
    return np.interp(times, np.arange(len(level)) / RATE, np.minimum(level, 1.5)).astype(np.float32)


def mouth_track(
    phonemes: Sequence[Phoneme], audio: np.ndarray, times: np.ndarray, strength: float
) -> tuple[Float32[np.ndarray, "t 57"], Float32[np.ndarray, " t"]]:
    """Expression coefficients of the speaking mouth and how firmly the lips are shut.

    Targets follow the sound 40 ms ahead and are blended by Gaussians, rounding the widest because
    lips round before the vowel that asks for it (coarticulation). Stress and loudness open more.
    `times` are seconds; `strength` about 1 is how clearly the person articulates.
    """
    end = max([p.end for p in phonemes] + [float(times[-1]) if len(times) else 0.0]) + 0.2
    fine = np.arange(int(end * RATE) + 1) / RATE
    track = np.zeros((len(fine), len(EXPRESSIONS)), np.float32)
    for phoneme in phonemes:
        shapes = visemes(phoneme.ipa)
        edges = np.linspace(phoneme.start, phoneme.end, len(shapes) + 1) - _ANTICIPATION
        for shape, start, stop in zip(shapes, edges[:-1], edges[1:], strict=True):
            a, b = np.searchsorted(fine, (start, stop))
            effort = 1.15 if phoneme.stressed else 0.9
            track[a:b] = coefficients(**_SHAPES[shape]) * (1.0 if shape == "closed" else effort)
    track[:, columns(*_OPENING_AND_JAW)] *= (0.55 + 0.5 * loudness(audio, fine))[:, None]
    used = np.flatnonzero(track.any(0))
    rounded, jaw = columns(*_ROUNDED), columns("jawOpen")
    for column in used:
        width = _ROUNDING if column in rounded else _JAW if column in jaw else _LIPS
        track[:, column] = gaussian_filter1d(track[:, column], width * RATE)
    track *= strength
    shut = closure_curve(phonemes, fine)
    sampled = np.stack([np.interp(times, fine, track[:, c]) for c in range(track.shape[1])], 1)
    return sampled.astype(np.float32), np.interp(times, fine, shut).astype(np.float32)


def close_lips(
    expression: Float32[np.ndarray, "t 57"], shut: Float32[np.ndarray, " t"]
) -> Float32[np.ndarray, "t 57"]:
    """Expression with everything that parts the lips held back by `shut`, and the lips pressed."""
    closed = expression.copy()
    keep = 1 - shut[:, None]
    closed[:, columns(*_OPENING_AND_JAW)] *= keep
    # A smile or a sneer under a closure stays, but not its parting of the lips.
    closed[:, columns("mouthSmile", "noseSneer")] *= 1 - 0.4 * shut[:, None]
    pressed = coefficients(**_SHAPES["closed"])
    return np.maximum(closed, shut[:, None] * pressed)
