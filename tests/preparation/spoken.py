"""Voices whose loudness is known, and mouths that open with them."""

from __future__ import annotations

import cv2
import numpy as np

RATE = 16_000


def openness(frames: int, seed: int = 0) -> np.ndarray:
    """How far a mouth is open in every frame, 0 to 1: syllables of 4 to 8 frames, and pauses."""
    random = np.random.default_rng(seed)
    curve: list[float] = []
    while len(curve) < frames:
        length = int(random.integers(4, 9))
        size = float(random.choice([0, 0.5, 0.8, 1.0], p=[0.2, 0.2, 0.3, 0.3]))
        curve += (size * np.sin(np.pi * np.arange(length) / length) ** 2).tolist()
    return np.array(curve[:frames])


def voice(opening: np.ndarray, seed: int = 0) -> np.ndarray:
    """Buzzing 16 kHz sound, as loud in every frame as the mouth is open."""
    time = np.arange(len(opening) * 640) / RATE
    loudness = np.interp(time * 25 - 0.5, np.arange(len(opening)), opening)
    random = np.random.default_rng(seed)
    pitch = 120 + 15 * np.sin(2 * np.pi * 0.7 * time) + 8 * np.sin(2 * np.pi * 2.3 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20))
    noise = random.normal(size=len(time))
    return (0.12 * (loudness + 0.003) * (buzz + 0.2 * noise)).astype(np.float32)


def mouths(opening: np.ndarray, seed: int = 0) -> np.ndarray:
    """The lower halves of faces, (t, 16, 24), whose mouths are open so far; with camera noise."""
    random = np.random.default_rng(seed)
    patches = []
    for gap in opening:
        picture = np.full((64, 96), 170, np.uint8)
        cv2.ellipse(picture, (48, 28), (20, round(3 + 13 * gap)), 0, 0, 360, 60, -1)
        small = cv2.resize(picture, (24, 16), interpolation=cv2.INTER_AREA)
        patches.append(np.clip(small + random.normal(0, 3, small.shape), 0, 255))
    return np.stack(patches).astype(np.uint8)
