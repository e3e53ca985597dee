"""wav2vec2: speech features from the waveform, here at the rate of the video.

Layers: transformers src/transformers/models/wav2vec2/modeling_wav2vec2.py, base size. The change
of rate lies between its convolutions and its transformer, as in deepbrainai-research/float
models/wav2vec2.py.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from xactor_jax.nn.attention import MultiHeadAttention
from xactor_jax.nn.layers import Conv, Linear
from xactor_jax.nn.norms import group_norm, layer_norm

SAMPLES_PER_FRAME = 640  # 16 kHz to 25 frames per second


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wav2Vec2Config:
    """Sizes; the defaults are wav2vec2-base."""

    conv_channels: int = 512
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    width: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    dtype: str = "float32"

    @property
    def shortest(self) -> int:
        """Samples below which the convolutions yield nothing."""
        samples = 1
        for kernel, stride in zip(self.conv_kernels[::-1], self.conv_strides[::-1], strict=True):
            samples = (samples - 1) * stride + kernel
        return samples


class Wav2Vec2(nnx.Module):
    """Speech to the hidden states of every layer."""

    def __init__(self, config: Wav2Vec2Config, *, rngs: nnx.Rngs):
        self.config = c = config
        dtype = jnp.dtype(c.dtype)
        widths = (1, *(c.conv_channels for _ in c.conv_kernels))
        self.convs = nnx.List(
            [
                Conv(
                    inside,
                    c.conv_channels,
                    (kernel,),
                    strides=stride,
                    padding=0,
                    use_bias=False,
                    dtype=dtype,
                    rngs=rngs,
                )
                for inside, kernel, stride in zip(
                    widths, c.conv_kernels, c.conv_strides, strict=False
                )
            ]
        )
        # Each channel over time, after the first convolution only.
        self.conv_norm = group_norm(c.conv_channels, c.conv_channels, 1e-5, rngs)
        self.feature_norm = layer_norm(c.conv_channels, rngs)
        self.projection = Linear(c.conv_channels, c.width, dtype=dtype, rngs=rngs)
        self.positions = Conv(
            c.width,
            c.width,
            (c.position_kernel,),
            padding=[(c.position_kernel // 2, (c.position_kernel - 1) // 2)],
            feature_group_count=c.position_groups,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = layer_norm(c.width, rngs)
        self.layers = nnx.List([Wav2Vec2Layer(c, rngs=rngs) for _ in range(c.layers)])

    def __call__(
        self, audio: Float[Array, "b s"], frames: int | None = None
    ) -> Float[Array, "b layers+1 t d"]:
        """Hidden states at the rate of the video.

        Args:
          audio: 16 kHz mono, at any loudness: it is standardised here.
          frames: how many frames the audio spans; by default 25 for every second.

        Returns:
          What enters the first layer, then the output of every layer.

        Raises ValueError for audio of fewer than 400 samples.
        """
        if audio.shape[1] < self.config.shortest:
            raise ValueError(f"wav2vec2 needs at least {self.config.shortest} samples of audio")
        frames = frames or max(1, round(audio.shape[1] / SAMPLES_PER_FRAME))
        features = interpolate(self.convolve(standardised(audio)), frames)
        x = self.projection(self.feature_norm(features))
        x = self.norm(x + nnx.gelu(self.positions(x), approximate=False))
        states = [x]
        for layer in self.layers:
            states.append(x := layer(x))
        return jnp.stack(states, axis=1).astype(jnp.float32)

    def convolve(self, audio: Float[Array, "b s"]) -> Float[Array, "b n c"]:
        """Standardised audio -> features, about 50 a second."""
        x = audio[..., None].astype(self.config.dtype)
        for index, conv in enumerate(self.convs):
            x = conv(x)
            x = nnx.gelu(self.conv_norm(x) if index == 0 else x, approximate=False)
        return x


class Wav2Vec2Layer(nnx.Module):
    """Attention and a feed-forward network, each before its norm."""

    def __init__(self, config: Wav2Vec2Config, *, rngs: nnx.Rngs):
        c, dtype = config, jnp.dtype(config.dtype)
        self.attention = MultiHeadAttention(c.width, c.heads, bias=True, dtype=dtype, rngs=rngs)
        self.norm1 = layer_norm(c.width, rngs)
        self.fc1 = Linear(c.width, c.feed_forward, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(c.feed_forward, c.width, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(c.width, rngs)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.fc2(nnx.gelu(self.fc1(x), approximate=False)))


def standardised(audio: Float[Array, "b s"]) -> Float[Array, "b s"]:
    """Each recording at mean 0 and variance 1 (transformers Wav2Vec2FeatureExtractor)."""
    audio = audio.astype(jnp.float32)
    centred = audio - audio.mean(axis=1, keepdims=True)
    return centred / jnp.sqrt(audio.var(axis=1, keepdims=True) + 1e-7)


def interpolate(features: Float[Array, "b n c"], frames: int) -> Float[Array, "b {frames} c"]:
    """Linear interpolation in time; the first and the last feature stay where they are."""
    last = features.shape[1] - 1
    places = np.linspace(0, last, frames)
    left = np.minimum(places.astype(int), max(last - 1, 0))
    right = np.minimum(left + 1, last)
    weight = jnp.asarray(places - left, features.dtype)[:, None]
    return features[:, left] * (1 - weight) + features[:, right] * weight
