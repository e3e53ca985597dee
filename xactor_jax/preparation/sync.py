"""Whether mouth and sound go together, and by how many frames they are apart.

Two curves of agreement over lags are added: of the log loudness with the darkness between the lips,
which needs no training, and of mel bands with what a regression, cross-validated inside the clip,
reads from the mouth's pixels.
"""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import librosa
import numpy as np
from jaxtyping import Float, UInt8

from xactor_jax.data.shards import SAMPLE_RATE, SAMPLES_PER_FRAME
from xactor_jax.evaluation.curves import correlation, correlation_at_lags, without_trend
from xactor_jax.media.faces import cut_view
from xactor_jax.preparation.settings import FOLDS, Sync, fewest_frames

# The lower half of the face, in sides of the head box from its centre, and the pixels it has.
MOUTH_BELOW, MOUTH_HEIGHT, MOUTH_WIDTH = 0.25, 0.5, 0.75
_ROWS, _COLUMNS = 16, 24
_LIPS = slice(3, 12), slice(6, 18)
_COMPONENTS = 16
_BANDS = 16
_APART = 5  # frames between what a fold learns from and what it is tried on
_RIDGE = 0.01
_PEAK_WIDTH = 3


@dataclasses.dataclass(frozen=True)
class Offset:
    """By how many frames the sound is late, how well it then agrees, and how clear that is."""

    frames: int
    peak: float
    margin: float  # of the peak above what lies more than three frames from it

    def sure(self, settings: Sync) -> bool:
        """Whether the offset can be relied on."""
        return self.peak >= settings.peak and self.margin >= settings.margin


def mouth_patch(
    gray: UInt8[np.ndarray, "size size"], head: Float[np.ndarray, "3"]
) -> UInt8[np.ndarray, "16 24"]:
    """The lower half of the face, from the view in grey and the head box in units of the view."""
    cy, cx, side = head * len(gray)
    square = cut_view(gray, (cy + MOUTH_BELOW * side, cx, MOUTH_WIDTH * side), 2 * _COLUMNS)
    height = round(len(square) * MOUTH_HEIGHT / MOUTH_WIDTH)
    top = (len(square) - height) // 2
    return cv2.resize(square[top : top + height], (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA)


def agreement(
    mouth: UInt8[np.ndarray, "t 16 24"], audio: Float[np.ndarray, " samples"], most: int
) -> Float[np.ndarray, " lags"]:
    """How well mouth and 16 kHz sound go together at lags of -most to most frames.

    The sum of two correlations; positive lags: the mouth is later. Raises ValueError for clips too
    short for that many lags.
    """
    length = min(len(mouth), len(audio) // SAMPLES_PER_FRAME)
    if length < fewest_frames(most):
        raise ValueError(f"{length} frames are too few for lags of up to {most}")
    mouth = mouth[:length].astype(np.float32)
    audio = np.asarray(audio[: length * SAMPLES_PER_FRAME], np.float32)
    lips = -mouth[:, *_LIPS].mean(axis=(1, 2))
    loudness = log_loudness(audio)
    plain = correlation_at_lags(without_trend(lips), without_trend(loudness), most)
    return plain + _learnt_agreement(_components(mouth), _bands(audio), most)


def log_loudness(audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " t"]:
    """Logarithm of the root mean square of every frame, floored 60 dB below the loudest."""
    size = np.sqrt(np.mean(audio.reshape(-1, SAMPLES_PER_FRAME).astype(np.float64) ** 2, axis=1))
    return np.log(size + 1e-3 * size.max() + 1e-9)


def offset(curve: Float[np.ndarray, " lags"]) -> Offset:
    """The offset that a curve of agreement speaks for."""
    best = int(np.argmax(curve))
    apart = np.abs(np.arange(len(curve)) - best) > _PEAK_WIDTH
    margin = float(curve[best] - curve[apart].max())
    return Offset(len(curve) // 2 - best, float(curve[best]), margin)


def _components(mouth: Float[np.ndarray, "t 16 24"]) -> Float[np.ndarray, "t d"]:
    """The main ways in which the mouth's pixels change, without their one-second trend."""
    pixels = _without_trends(mouth[:, ::1].reshape(len(mouth), -1))
    values, vectors = np.linalg.eigh(pixels.T @ pixels / len(pixels))
    main = pixels @ vectors[:, ::-1][:, :_COMPONENTS]
    return main / (np.sqrt(max(values[-1], 0)) + 1e-6)


def _bands(audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "t bands"]:
    power = librosa.feature.melspectrogram(
        y=audio,
        sr=SAMPLE_RATE,
        n_fft=SAMPLES_PER_FRAME,
        hop_length=SAMPLES_PER_FRAME,
        n_mels=_BANDS,
        fmin=80,
        fmax=7000,
        center=False,
    )
    return _without_trends(np.log(power + 1e-3 * power.max() + 1e-9).T)


def _without_trends(columns: Float[np.ndarray, "t d"]) -> Float[np.ndarray, "t d"]:
    rest = np.stack([without_trend(column) for column in columns.T], axis=1)
    return rest - rest.mean(axis=0)


def _learnt_agreement(
    seen: Float[np.ndarray, "t d"], heard: Float[np.ndarray, "t bands"], most: int
) -> Float[np.ndarray, " lags"]:
    """Mean correlation of the bands with a ridge regression's reading of them, fold by fold."""
    curve = []
    for lag in range(-most, most + 1):
        later = seen[max(lag, 0) : len(seen) + min(lag, 0)]
        earlier = heard[max(-lag, 0) : len(heard) + min(-lag, 0)]
        read = np.zeros_like(earlier)
        edges = np.linspace(0, len(later), FOLDS + 1).astype(int)
        for start, end in itertools.pairwise(edges):
            known = np.ones(len(later), bool)
            known[max(start - _APART, 0) : end + _APART] = False
            x, y = later[known], earlier[known] - earlier[known].mean(axis=0)
            ridge = _RIDGE * len(x) * np.eye(x.shape[1])
            read[start:end] = later[start:end] @ np.linalg.solve(x.T @ x + ridge, x.T @ y)
        curve.append(np.mean([correlation(*pair) for pair in zip(read.T, earlier.T, strict=True)]))
    return np.array(curve)
