"""What an actor is told to feel, and when the voice gives it away.

An emotion is announced in voice and face together, then held on the face alone while the voice is
neutral again, then released or changed. Sound of the last seconds cannot tell a held emotion from
none: only a model that remembers the announcement can.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int8
from scipy.ndimage import gaussian_filter1d

from xactor_jax.data.actor_speech import SAMPLE_RATE, Phoneme, Speaker, Speech, Voice
from xactor_jax.data.actor_text import sentence
from xactor_jax.data.shards import EMOTIONS, FRAME_RATE

# Rate, pitch, range and volume of a fully felt emotion, as factors of the neutral voice.
_VOICES = {
    "happy": (1.45, 1.3, 1.7, 1.1),
    "sad": (0.65, 0.65, 0.25, 0.55),
    "angry": (1.1, 0.7, 1.3, 2.0),
    "surprised": (0.9, 1.9, 2.0, 1.1),
}
_ONSET = 0.35  # seconds over which a face takes on or lets go of an emotion (Gaussian)
_LAG = 0.5  # seconds by which it follows the voice: who acts by ear cannot know before


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of a script: the emotion on the face, how strong, and whether the voice has it."""

    emotion: str
    intensity: float  # 0..1
    voiced: bool
    seconds: float


@dataclasses.dataclass(frozen=True)
class Performance:
    """A spoken script: the sound, its phonemes, and when each phase began, in seconds."""

    speech: Speech
    phases: tuple[Phase, ...]
    starts: tuple[float, ...]


def write_script(
    random: np.random.Generator, seconds: float, take_seconds: float | None = None
) -> tuple[Phase, ...]:
    """Phases for at least `seconds`: each announced emotion is held, then released or changed.

    take_seconds: emotions are held as long as in a take of this length; None: as in this one's.
    """
    phases: list[Phase] = []
    if random.random() < 0.4:
        phases.append(Phase("neutral", 0.0, False, random.uniform(1, 4)))
    hold = np.clip(0.35 * (take_seconds or seconds), 3, 15)
    last = "neutral"
    while sum(phase.seconds for phase in phases) < seconds:
        emotion = str(random.choice([e for e in EMOTIONS[1:] if e != last]))
        intensity = float(random.uniform(0.5, 1.0))
        phases.append(Phase(emotion, intensity, True, random.uniform(2.5, 4.5)))
        phases.append(Phase(emotion, intensity, False, hold * random.uniform(0.7, 2.0)))
        last = emotion
        if random.random() < 0.6:
            phases.append(Phase("neutral", 0.0, False, random.uniform(2.5, 6)))
            last = "neutral"
    return tuple(phases)


def voice_of(voice: Voice, phase: Phase) -> Voice:
    """The voice in a phase: between neutral and fully felt, by intensity; neutral if not voiced."""
    if not phase.voiced or phase.emotion == "neutral":
        return voice
    factors = 1 + phase.intensity * (np.array(_VOICES[phase.emotion]) - 1)
    return Voice(
        name=voice.name,
        rate=voice.rate * factors[0],
        pitch=min(voice.pitch * factors[1], 99),
        range=min(voice.range * factors[2], 99),
        volume=min(voice.volume * factors[3], 95),
    )


def perform(
    phases: Sequence[Phase],
    seconds: float,
    voice: Voice,
    speaker: Speaker,
    random: np.random.Generator,
) -> Performance:
    """Speak sentence after sentence; a phase ends with the sentence that passes its duration.

    The sound is exactly `seconds` long; the last sentence is cut there.
    """
    pieces: list[np.ndarray] = []
    phonemes: list[Phoneme] = []
    starts: list[float] = []
    now = 0.0

    def silence(duration: float) -> None:
        nonlocal now
        count = round(duration * SAMPLE_RATE)
        pieces.append(np.zeros(count, np.float32))
        now += count / SAMPLE_RATE

    silence(random.uniform(0.1, 0.5))
    for phase in phases:
        starts.append(now if starts else 0.0)
        end = starts[-1] + phase.seconds
        while now < min(end, seconds):
            speech = speaker.say(sentence(random), voice_of(voice, phase))
            phonemes += [
                dataclasses.replace(p, start=p.start + now, end=p.end + now)
                for p in speech.phonemes
            ]
            pieces.append(speech.audio)
            now += speech.seconds
            silence(random.uniform(0.15, 0.6) if random.random() < 0.8 else random.uniform(0.8, 2))
    wanted = round(seconds * SAMPLE_RATE)
    audio = np.concatenate(pieces)[:wanted]
    audio = np.pad(audio, (0, wanted - len(audio)))
    kept = tuple(
        dataclasses.replace(p, end=min(p.end, seconds)) for p in phonemes if p.start < seconds
    )
    begun = [i for i, start in enumerate(starts) if start < seconds]
    return Performance(
        Speech(audio, kept),
        tuple(phases[i] for i in begun),
        tuple(starts[i] for i in begun),
    )


def voiced_track(performance: Performance, frames: int) -> Bool[np.ndarray, " t"]:
    """In which frames the voice gives an emotion away."""
    voiced = np.zeros(frames, bool)
    edges = [*performance.starts, frames / FRAME_RATE + 1]
    for phase, start, stop in zip(performance.phases, edges[:-1], edges[1:], strict=True):
        voiced[round(start * FRAME_RATE) : round(stop * FRAME_RATE)] = (
            phase.voiced and phase.emotion != "neutral"
        )
    return voiced


def emotion_track(
    performance: Performance, frames: int
) -> tuple[Float32[np.ndarray, "t 5"], Int8[np.ndarray, " t"], Float32[np.ndarray, " t"]]:
    """How strongly each of EMOTIONS is on the face, the strongest, and its strength, per frame.

    The face follows the voice of a phase by `_LAG`. Strength is 0 to 1; a face with less than
    .05 of everything is neutral with strength 0.
    """
    strengths = np.zeros((frames, len(EMOTIONS)), np.float32)
    edges = [*performance.starts, frames / FRAME_RATE + 1]
    for phase, start, stop in zip(performance.phases, edges[:-1], edges[1:], strict=True):
        a, b = (round((t + _LAG) * FRAME_RATE) for t in (start, stop))
        strengths[a:b, EMOTIONS.index(phase.emotion)] = phase.intensity
    strengths = gaussian_filter1d(strengths, _ONSET * FRAME_RATE, axis=0, mode="nearest")
    strengths[:, 0] = 0
    strongest = strengths.argmax(1)
    intensity = strengths.max(1)
    felt = intensity >= 0.05
    return (
        strengths,
        np.where(felt, strongest, 0).astype(np.int8),
        np.where(felt, intensity, 0).astype(np.float32),
    )
