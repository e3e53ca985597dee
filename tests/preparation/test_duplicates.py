"""Copies are found however they were encoded and trimmed; other sentences are no copies."""

import io

import numpy as np
import soundfile
from preparation.spoken import openness, voice

from xactor_jax.preparation.duplicates import find_copies, fingerprint
from xactor_jax.preparation.settings import Duplicates

PICTURE = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)


def say(seed: int, frames: int = 125) -> np.ndarray:
    """A voice of its own melody, in noise."""
    random = np.random.default_rng(seed)
    sound = voice(openness(frames, seed), seed)
    bands = np.repeat(random.random((frames // 5 + 1, 8)), 5, axis=0)[:frames]
    time = np.arange(len(sound)) / 16_000
    tones = np.sin(2 * np.pi * time[:, None] * np.geomspace(250, 3800, 8))
    return sound + 0.02 * (tones * np.repeat(bands, 640, axis=0)).sum(axis=1).astype(np.float32)


def coded(sound: np.ndarray) -> np.ndarray:
    """Through Ogg Vorbis and back."""
    file = io.BytesIO()
    soundfile.write(file, sound, 16_000, format="OGG")
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def copies(sounds, pictures=None) -> dict[int, int]:
    prints = [fingerprint(sound) for sound in sounds]
    return find_copies(prints, pictures or [PICTURE] * len(prints), Duplicates())


def test_copies_are_found():
    first, other = say(1), say(2)
    trimmed = coded(first)[20 * 640 + 100 : 100 * 640]
    assert copies([first, other, 0.3 * coded(first), trimmed]) == {2: 0, 3: 0}


def test_other_sentences_are_no_copies():
    assert copies([say(seed) for seed in range(12)]) == {}


def test_one_sound_under_two_pictures_is_no_copy():
    other = np.random.default_rng(1).integers(0, 255, (32, 32)).astype(np.uint8)
    assert copies([say(1), say(1)], [PICTURE, other]) == {}
    assert copies([say(1), say(1)], [PICTURE, PICTURE // 2 + 40]) == {1: 0}
