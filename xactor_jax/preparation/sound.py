"""Loudness, silence and music of a clip's sound (mono, 16 kHz)."""

from __future__ import annotations

import dataclasses
import warnings

import librosa
import numpy as np
import pyloudnorm
from jaxtyping import Float

from xactor_jax.data.shards import SAMPLE_RATE, SAMPLES_PER_FRAME
from xactor_jax.preparation.settings import Sound

_SILENT = -35.0  # dB below the loud frames of a clip, and
_NOISELESS = -60.0  # dB of full scale: frames that are silent
_PEAK_BINS = 6  # strongest spectral peaks of a frame that are followed


@dataclasses.dataclass(frozen=True)
class SoundMeasures:
    """Integrated loudness (LUFS, BS.1770), share of silent frames, and share of held tones."""

    loudness: float
    silence: float
    music: float


def measure(audio: Float[np.ndarray, " samples"]) -> SoundMeasures:
    """Measure at least a second of sound; the loudness of digital silence is -inf."""
    return SoundMeasures(loudness(audio), silence(audio), music(audio))


def loudness(audio: Float[np.ndarray, " samples"]) -> float:
    """Integrated loudness in LUFS after ITU-R BS.1770."""
    meter = pyloudnorm.Meter(SAMPLE_RATE)
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of the mean of no gated block
        return float(np.nan_to_num(meter.integrated_loudness(audio), nan=-np.inf, neginf=-np.inf))


def silence(audio: Float[np.ndarray, " samples"]) -> float:
    """Share of 40 ms frames that are 35 dB below the loud ones, or below -60 dB."""
    whole = audio[: len(audio) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    power = np.mean(whole.reshape(-1, SAMPLES_PER_FRAME).astype(np.float64) ** 2, axis=1)
    level = 10 * np.log10(power + 1e-12)
    return float(np.mean(level < max(np.percentile(level, 95) + _SILENT, _NOISELESS)))


def music(audio: Float[np.ndarray, " samples"]) -> float:
    """Share of the strong spectral peaks that stay at their pitch for a third of a second.

    Voices glide, instruments hold: near 0 for speech, near 1 for chords. Singing lies between.
    """
    size, hop = 2048, 512
    spectrum = np.abs(librosa.stft(y=audio.astype(np.float32), n_fft=size, hop_length=hop))
    spectrum = spectrum[10:512]  # 80 Hz to 4 kHz
    loud = spectrum.max(axis=0) > 0.05 * np.percentile(spectrum.max(axis=0), 95) + 1e-6
    spectrum = spectrum[:, loud]
    steps = round(SAMPLE_RATE / hop / 3)
    if spectrum.shape[1] <= steps:
        return 0.0
    inner = spectrum[1:-1]
    peaks = (inner > spectrum[:-2]) & (inner >= spectrum[2:])
    strongest = np.where(peaks, inner, 0)
    least = np.partition(strongest, -_PEAK_BINS, axis=0)[-_PEAK_BINS]
    kept = peaks & (strongest >= np.maximum(least, 0.1 * strongest.max(axis=0)))
    run = np.zeros(kept.shape[0], int)
    lengths = np.zeros(kept.shape, int)
    for t in range(kept.shape[1]):
        run = np.where(kept[:, t], run + 1, 0)
        lengths[:, t] = run
    held = lengths >= steps
    for t in range(kept.shape[1] - 2, -1, -1):  # back to where each held tone began
        held[:, t] |= held[:, t + 1] & kept[:, t]
    return float(held.sum() / max(kept.sum(), 1))


def normalised(
    audio: Float[np.ndarray, " samples"], measured: float, settings: Sound
) -> Float[np.ndarray, " samples"]:
    """The sound at the wanted loudness, or as near to it as the highest peak allows."""
    if not settings.normalise or not np.isfinite(measured):
        return audio
    highest = float(np.abs(audio).max()) + 1e-9
    gain = min(10 ** ((settings.loudness - measured) / 20), 10 ** (settings.peak / 20) / highest)
    return (audio * gain).astype(np.float32)


def refusal(measured: SoundMeasures, settings: Sound) -> str:
    """Why a clip's sound cannot be used, or nothing."""
    if measured.loudness < settings.quietest:
        return f"too quiet: {measured.loudness:.0f} LUFS"
    if measured.silence > settings.silence:
        return f"silent in {measured.silence:.0%} of the frames"
    if measured.music > settings.music:
        return f"music: {measured.music:.0%} of the tones are held"
    return ""
