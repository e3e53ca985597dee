"""What is heard in a file, at its own rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xactor_jax.media.audio import Sound


def all_heard(path: Path) -> tuple[np.ndarray, int]:
    """All samples of a file's sound, (samples, channels), and their rate in Hz."""
    sound = Sound(path)
    return np.concatenate(list(sound)), sound.rate
