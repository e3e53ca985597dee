"""Speech as features, one vector a video frame; mel here, wav2vec2's in speech_features.py."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import librosa
import numpy as np
from jaxtyping import Float

from xactor_jax.data.shards import SAMPLE_RATE, SAMPLES_PER_FRAME

_PIECE = 1000 * SAMPLES_PER_FRAME  # of a recording, so that windows do not fill the memory


class FeatureStream(Protocol):
    """Features of 16 kHz mono speech that arrives in pieces of any size.

    However it is cut, the features are the same to the last bit.
    """

    def push(self, audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "n f"]:
        """The features that these samples complete."""
        ...

    def finish(self) -> Float[np.ndarray, "n f"]:
        """The rest, up to the frame in which the last sample lies; silence follows it."""
        ...


class Hearing(Protocol):
    """A way to hear speech: `MelConfig`, or a `speech_features.SpeechModel`.

    Its repr tells its features from those of others.
    """

    @property
    def width(self) -> int:
        """Features a frame."""
        ...

    def needed(self, frames: int) -> int:
        """Samples that must be heard before the features of the first `frames` are known."""
        ...

    def stream(self, gain: float) -> FeatureStream:
        """A new stream; samples are multiplied by `gain`, the `recording_gain` of such speech."""
        ...


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

    def needed(self, frames: int) -> int:
        """Samples that must be heard before the features of the first `frames` are known."""
        return frames * SAMPLES_PER_FRAME + self.overlap - self.window // 2

    @property
    def overlap(self) -> int:
        """Samples beyond whole frames that the windows of a frame reach."""
        return max(self.window - SAMPLES_PER_FRAME // self.hops, 0)

    def stream(self, gain: float) -> MelStream:
        """A new stream."""
        return MelStream(self, gain)


class MelStream:
    """Mel features; each frame's are computed by themselves, in arrays of one shape."""

    def __init__(self, config: MelConfig, gain: float):
        self.config, self.gain = config, np.float32(gain)
        self._basis = librosa.filters.mel(
            sr=SAMPLE_RATE,
            n_fft=config.window,
            n_mels=config.bands,
            fmin=config.lowest,
            fmax=config.highest,
        ).T
        # Samples from half a window before the next frame on; before the start is silence.
        self._samples = np.zeros(config.window // 2, np.float32)
        self._pushed = self._given = 0  # samples, frames

    def push(self, audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "n f"]:
        """The features that these samples complete."""
        self._pushed += len(audio)
        self._samples = np.concatenate([self._samples, self.gain * np.asarray(audio, np.float32)])
        frames = max((len(self._samples) - self.config.overlap) // SAMPLES_PER_FRAME, 0)
        features = self._features(frames)
        self._samples = self._samples[frames * SAMPLES_PER_FRAME :].copy()
        self._given += frames
        return features

    def finish(self) -> Float[np.ndarray, "n f"]:
        """The rest, up to the frame in which the last sample lies; silence follows it."""
        missing = -(-self._pushed // SAMPLES_PER_FRAME) - self._given
        needed = missing * SAMPLES_PER_FRAME + self.config.overlap
        return self.push(np.zeros(max(needed - len(self._samples), 0), np.float32))[:missing]

    def _features(self, frames: int) -> Float[np.ndarray, "{frames} f"]:
        c, hop = self.config, SAMPLES_PER_FRAME // self.config.hops
        if not frames:
            return np.zeros((0, c.width), np.float32)
        samples = self._samples[: (frames * c.hops - 1) * hop + c.window]
        spectrum = librosa.stft(samples, n_fft=c.window, hop_length=hop, center=False).T
        power = (spectrum.real**2 + spectrum.imag**2).reshape(frames, c.hops, -1)
        # One product a frame, of one shape: how a larger one is summed depends on its size.
        decades = np.log10(np.maximum(power @ self._basis, 1e-6))
        scaled = (decades + 2.5) / 2  # about zero mean and unit deviation for speech
        return np.ascontiguousarray(scaled.reshape(frames, c.width), np.float32)


def audio_features(
    audio: Float[np.ndarray, " samples"], frames: int, hearing: Hearing
) -> Float[np.ndarray, "{frames} f"]:
    """16 kHz mono speech -> `frames` rows of features at 25 a second.

    The loudness of the loud parts is set to a standard first, so that the level of a recording
    does not matter; what lies beyond the end is silence.
    """
    length = frames * SAMPLES_PER_FRAME
    padded = np.zeros(length, np.float32)
    padded[: min(length, len(audio))] = audio[:length]
    stream = hearing.stream(recording_gain(padded))
    pieces = [stream.push(padded[start : start + _PIECE]) for start in range(0, length, _PIECE)]
    return np.concatenate([*pieces, stream.finish()])


def recording_gain(audio: Float[np.ndarray, " samples"]) -> float:
    """The factor that brings the loud frames' root mean square to 0.1; 1 for silence.

    After the last sample silence fills its frame, as in `audio_features`.
    """
    if not len(audio):
        return 1.0
    whole = np.pad(audio, (0, -len(audio) % SAMPLES_PER_FRAME))
    loudness = np.sqrt(np.mean(whole.reshape(-1, SAMPLES_PER_FRAME) ** 2, axis=1))
    loud = float(np.percentile(loudness, 90))
    return 0.1 / loud if loud > 1e-5 else 1.0
