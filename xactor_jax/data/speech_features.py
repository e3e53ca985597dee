"""wav2vec2 as the performer's ears: hidden states of every layer, 25 rows a second.

The network attends to all that it is given, so what a frame sounds like would depend on how long a
recording is. Here it hears a recording in windows of one length, each for the block of frames in
it, the same in training, generation and live (paper_spec's A7 calls for such a bounded window; that
all layers are taken is deepbrainai-research/float's choice, models/wav2vec2.py).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from xactor_jax.checkpoint import config_of, fitting_graph, load_kind
from xactor_jax.data.shards import SAMPLES_PER_FRAME
from xactor_jax.errors import InputError
from xactor_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from xactor_jax.state import digest

SPEECH_FILE = "wav2vec2.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechWindow:
    """What is heard at a time, in frames; the values are our defaults."""

    before: int = 250
    block: int = 25  # whose features are taken
    after: int = 5

    @property
    def frames(self) -> int:
        """All of it."""
        return self.before + self.block + self.after

    def needed(self, frames: int) -> int:
        """Samples that must be heard before the features of the first `frames` are known."""
        blocks = -(-frames // self.block)
        return (blocks * self.block + self.after) * SAMPLES_PER_FRAME


class SpeechModel:
    """A converted wav2vec2 and how much it hears at a time.

    Raises InputError where the file is missing or another network's.
    """

    def __init__(self, path: Path, window: SpeechWindow | None = None):
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; write it with python -m xactor_jax.convert wav2vec2 "
                f"--source=WEIGHTS --output={path.parent}"
            )
        arrays, metadata = load_kind(path, "wav2vec2")
        config = config_of(path, metadata, "wav2vec2", Wav2Vec2Config)
        if jax.default_backend() != "cpu":
            config = dataclasses.replace(config, dtype="bfloat16")
        graph = fitting_graph(path, lambda rngs: Wav2Vec2(config, rngs=rngs), arrays["params"])
        self.window = window or SpeechWindow()
        self.width = config.layers * config.width
        self.weights = jax.tree.map(jnp.asarray, arrays["params"])
        self.digest = digest(arrays["params"])

        @jax.jit
        def hear(weights: Any, audio: Float[Array, " samples"]) -> Float[Array, "block f"]:
            w = self.window
            states = nnx.merge(graph, weights)(audio[None], w.frames)[0, 1:]
            block = states[:, w.before : w.before + w.block]
            return rearrange(block, "layers t d -> t (layers d)")

        self._hear = hear

    def __repr__(self) -> str:
        """What tells its features from others'; caches are named by it."""
        return f"SpeechModel({self.digest}, {self.window})"

    def hear(self, audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "block f"]:
        """Features of the block in a window of 16 kHz mono."""
        return np.asarray(self._hear(self.weights, audio))

    def needed(self, frames: int) -> int:
        """Samples that must be heard before the features of the first `frames` are known."""
        return self.window.needed(frames)

    def stream(self, gain: float) -> SpeechStream:
        """A new stream; the gain does not matter, as the network standardises what it hears."""
        return SpeechStream(self)


class SpeechStream:
    """Features of 16 kHz mono speech that arrives in pieces of any size, block after block."""

    def __init__(self, model: SpeechModel):
        self.model = model
        # From the start of the next window on; before the recording is silence.
        self._samples = np.zeros(model.window.before * SAMPLES_PER_FRAME, np.float32)
        self._pushed = self._given = 0  # samples, frames

    def push(self, audio: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "n f"]:
        """The features that these samples complete."""
        self._pushed += len(audio)
        self._samples = np.concatenate([self._samples, np.asarray(audio, np.float32)])
        window, blocks = self.model.window, [np.zeros((0, self.model.width), np.float32)]
        needed = window.frames * SAMPLES_PER_FRAME
        while len(self._samples) >= needed:
            blocks.append(self.model.hear(self._samples[:needed]))
            self._samples = self._samples[window.block * SAMPLES_PER_FRAME :].copy()
        features = np.concatenate(blocks)
        self._given += len(features)
        return features

    def finish(self) -> Float[np.ndarray, "n f"]:
        """The rest, up to the frame in which the last sample lies; silence follows it."""
        window = self.model.window
        missing = -(-self._pushed // SAMPLES_PER_FRAME) - self._given
        blocks = -(-missing // window.block)
        needed = (window.frames + (blocks - 1) * window.block) * SAMPLES_PER_FRAME
        return self.push(np.zeros(max(needed - len(self._samples), 0), np.float32))[:missing]
