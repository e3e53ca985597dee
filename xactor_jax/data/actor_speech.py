"""Speech with known phoneme times, from espeak-ng through ctypes."""

from __future__ import annotations

import _ctypes
import ctypes
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import soxr
from jaxtyping import Float32

from xactor_jax.errors import InputError

SAMPLE_RATE = 16_000

# Values of speak_lib.h of espeak-ng 1.52.
_SYNCHRONOUS = 2
_PHONEME_EVENTS_IN_IPA = 1 | 2
_DO_NOT_EXIT = 0x8000
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_UTF8, _POSITION_CHARACTER = 1, 1

FEMALE = ("f1", "f2", "f3", "f4", "f5", "Annie", "linda", "steph", "anika")
MALE = ("m1", "m2", "m3", "m4", "m5", "m7", "michael", "Gene", "max", "Andy")
LANGUAGES = ("en-us", "en-us", "en-us", "en-gb-x-rp", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland")


@dataclasses.dataclass(frozen=True)
class Voice:
    """A speaker and a manner of speaking, in the units of espeak-ng."""

    name: str = "en-us"
    rate: float = 160  # words a minute
    pitch: float = 50  # 0..100
    range: float = 50  # 0 is monotone, 100 very lively
    volume: float = 60  # 100 is the loudest before clipping


@dataclasses.dataclass(frozen=True)
class Phoneme:
    """One sound of speech: start and end in seconds, IPA with stress marks ("" is silence)."""

    start: float
    end: float
    ipa: str

    @property
    def stressed(self) -> bool:
        """Whether the syllable carries primary stress."""
        return "ˈ" in self.ipa


@dataclasses.dataclass(frozen=True)
class Speech:
    """Sound at 16 kHz in [-1,1] and the phonemes in it, in order of time."""

    audio: Float32[np.ndarray, " samples"]
    phonemes: tuple[Phoneme, ...]

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.audio) / SAMPLE_RATE


class _Name(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Speaker:
    """A running espeak-ng; make one with `speaker`."""

    def __init__(self, library: ctypes.CDLL, data_path: str, seed: int):
        self._library = library
        options = _PHONEME_EVENTS_IN_IPA | _DO_NOT_EXIT
        self._rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), options)
        if self._rate <= 0:
            raise InputError(f"{data_path}: espeak-ng cannot start; reinstall espeakng-loader")
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._pieces: list[np.ndarray] = []
        self._starts: list[tuple[float, str]] = []
        self._callback = _CALLBACK(self._receive)  # kept alive as long as the library may call it
        library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, events) -> int:
        if count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_END_OF_LIST:
            if events[i].type == _EVENT_PHONEME:
                # The name is a fixed 8 bytes, which may end inside a character.
                ipa = events[i].id.string.decode("utf-8", "ignore")
                self._starts.append((events[i].sample / self._rate, ipa.strip()))
            i += 1
        return 0

    def say(self, text: str, voice: Voice) -> Speech:
        """Speak a text; raises InputError when espeak-ng has no such voice or stays silent."""
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise InputError(f"espeak-ng has no voice {voice.name!r}; choose one like en-us+f2")
        for parameter, value in (
            (_RATE, voice.rate),
            (_VOLUME, voice.volume),
            (_PITCH, voice.pitch),
            (_RANGE, voice.range),
        ):
            self._library.espeak_SetParameter(parameter, round(value), 0)
        self._pieces.clear()
        self._starts.clear()
        data = text.encode()
        self._library.espeak_Synth(
            data, len(data) + 1, 0, _POSITION_CHARACTER, 0, _UTF8, None, None
        )
        self._library.espeak_Synchronize()
        if not self._pieces:
            raise InputError(f"espeak-ng says nothing for the text {text!r}")
        sound = np.concatenate(self._pieces).astype(np.float32) / 32768
        audio = soxr.resample(sound, self._rate, SAMPLE_RATE)
        return Speech(audio, _phonemes(self._starts, len(audio) / SAMPLE_RATE))


def _phonemes(starts: list[tuple[float, str]], seconds: float) -> tuple[Phoneme, ...]:
    times = np.minimum(np.maximum.accumulate([t for t, _ in starts] + [seconds]), seconds)
    return tuple(
        Phoneme(float(a), float(b), ipa)
        for a, b, (_, ipa) in zip(times[:-1], times[1:], starts, strict=True)
        if b > a
    )


@contextmanager
def speaker(seed: int) -> Generator[Speaker]:
    """A fresh espeak-ng whose breath and flutter follow `seed`.

    The library keeps state from sentence to sentence in static variables, so the same text sounds
    different the second time; a private copy of the library gives every take the same beginning.

    Raises:
      InputError: espeakng-loader is not installed.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise InputError("espeakng-loader is missing; pip install 'xactor_jax[actors]'") from None
    with tempfile.TemporaryDirectory() as folder:
        original = os.path.realpath(espeakng_loader.get_library_path())
        library = ctypes.CDLL(shutil.copy(original, folder))
    try:
        yield Speaker(library, str(espeakng_loader.get_data_path()), seed)
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def choose_voice(random: np.random.Generator) -> Voice:
    """The voice of a person: language, variant, and how they usually speak."""
    female = random.random() < 0.5
    variant = random.choice(FEMALE if female else MALE)
    return Voice(
        name=f"{random.choice(LANGUAGES)}+{variant}",
        rate=random.uniform(140, 180),
        pitch=random.uniform(40, 60),
        range=random.uniform(40, 60),
        volume=random.uniform(45, 60),
    )
