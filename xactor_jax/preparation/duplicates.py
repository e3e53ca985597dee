"""Clips that are copies of another: encoded again, trimmed, or at another loudness.

Sounds are compared by fingerprints of signs (J. Haitsma, T. Kalker, *A Highly Robust Audio
Fingerprinting System*, ISMIR 2002), then mean pictures.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import librosa
import numpy as np
from jaxtyping import Float, UInt8, UInt16

from xactor_jax.data.shards import SAMPLE_RATE, SAMPLES_PER_FRAME
from xactor_jax.preparation.settings import Duplicates

_BANDS = 17
_WINDOW = 4 * SAMPLES_PER_FRAME  # long against a frame, so that a trimmed copy's frames still fit
_STEP = 3  # frames over which a rise is seen: few bits are then close calls
_SAMPLED = 2  # one frame in so many is looked up, chosen by its own bits
_FRAMES = 25  # that two clips must share
_COMMON = 50  # clips that share a moment; what more of them share is silence or a jingle


def fingerprint(audio: Float[np.ndarray, " samples"]) -> UInt16[np.ndarray, " t"]:
    """16 bits a frame of 40 ms: whether the slope of the spectrum rises."""
    power = librosa.feature.melspectrogram(
        y=np.asarray(audio, np.float32),
        sr=SAMPLE_RATE,
        n_fft=_WINDOW,
        hop_length=SAMPLES_PER_FRAME,
        n_mels=_BANDS,
        fmin=200,
        fmax=4000,
    )
    slope = np.diff(np.log(power + 1e-8), axis=0)
    rises = slope[:, _STEP:] > slope[:, :-_STEP]
    return rises.T.astype(np.uint16) @ (1 << np.arange(_BANDS - 1, dtype=np.uint16))


def find_copies(
    fingerprints: Sequence[UInt16[np.ndarray, " t"]],
    pictures: Sequence[UInt8[np.ndarray, "32 32"]],
    settings: Duplicates,
) -> dict[int, int]:
    """Clips that copy an earlier or longer one: their places -> that one's place."""
    order = sorted(range(len(fingerprints)), key=lambda i: (-len(fingerprints[i]), i))
    index: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
    copies: dict[int, int] = {}
    for i in order:
        keys = list(_keys(fingerprints[i]))
        found = collections.Counter((j, u - t) for t, key in keys for j, u in index.get(key, ()))
        for (j, shift), _ in found.most_common(5):
            errors = bit_errors(fingerprints[j], fingerprints[i], shift)
            if errors <= settings.bit_errors and _alike(pictures[i], pictures[j], settings):
                copies[i] = j
                break
        else:
            for t, key in keys:
                if len(index[key]) < _COMMON:
                    index[key].append((i, t))
    return copies


def bit_errors(
    long: UInt16[np.ndarray, " t"], short: UInt16[np.ndarray, " u"], shift: int
) -> float:
    """Share of bits that differ where frame t of `short` is frame t + shift of `long`."""
    start, end = max(0, -shift), min(len(short), len(long) - shift)
    if end - start < max(_FRAMES, len(short) // 2):
        return 1.0
    differ = np.bitwise_xor(short[start:end], long[start + shift : end + shift])
    return float(np.bitwise_count(differ).mean() / 16)


def _keys(bits: UInt16[np.ndarray, " t"]):
    pairs = bits[:-1].astype(np.uint32) << 16 | bits[1:]
    chosen = (pairs * np.uint32(2654435761) >> np.uint32(24)) % _SAMPLED == 0
    return zip(np.flatnonzero(chosen).tolist(), pairs[chosen].tolist(), strict=True)


def _alike(a: np.ndarray, b: np.ndarray, settings: Duplicates) -> bool:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) >= settings.picture
