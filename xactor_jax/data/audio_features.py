"""Speech as features, one vector a video frame."""

from __future__ import annotations

import dataclasses

import librosa
import numpy as np
from jaxtyping import Float

from xactor_jax.data.shards import SAMPLE_RATE, SAMPLES_PER_FRAME


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelConfig:
    """Log-mel spectrogram; `hops` of its columns make one video frame."""

    bands: int = 40
    hops: int = 4
    window: int = 512  # samples
    lowest: float = 50.0  # Hz
    highest: float = 7600.0

    @property
    def width(self) -> int:
        """Features a frame."""
        return self.bands * self.hops


def audio_features(
    audio: Float[np.ndarray, " samples"], frames: int, config: MelConfig
) -> Float[np.ndarray, "{frames} f"]:
    """16 kHz mono speech -> `frames` rows of features at 25 a second.

    The loudness of the loud parts is set to a standard first, so that the level of a recording
    does not matter; what lies beyond the end is silence.
    """
    length = frames * SAMPLES_PER_FRAME
    padded = np.zeros(max(length, 1), np.float32)
    padded[: min(length, len(audio))] = audio[:length]
    power = librosa.feature.melspectrogram(
        y=padded * _gain(padded),
        sr=SAMPLE_RATE,
        n_fft=config.window,
        hop_length=SAMPLES_PER_FRAME // config.hops,
        n_mels=config.bands,
        fmin=config.lowest,
        fmax=config.highest,
    )
    decades = np.log10(np.maximum(power, 1e-6))[:, : frames * config.hops]
    scaled = (decades + 2.5) / 2  # about zero mean and unit deviation for speech
    return np.ascontiguousarray(scaled.T.reshape(frames, config.width), np.float32)


def _gain(audio: Float[np.ndarray, " samples"]) -> float:
    """The factor that brings the loud frames' root mean square to 0.1."""
    usable = audio[: len(audio) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    if not len(usable):
        return 1.0
    loudness = np.sqrt(np.mean(usable.reshape(-1, SAMPLES_PER_FRAME) ** 2, axis=1))
    loud = float(np.percentile(loudness, 90))
    return 0.1 / loud if loud > 1e-5 else 1.0
