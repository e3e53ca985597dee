"""Clips of one flat colour, and a renderer and a meter that know no more than brightness.

An identity is a colour channel, a motion is its brightness over time: all that should be measured
can be computed by hand.
"""

from types import SimpleNamespace

import numpy as np

from xactor_jax.data.facekit import EXPRESSION_INDEX
from xactor_jax.data.shards import SAMPLES_PER_FRAME, Clip, encode_frame
from xactor_jax.evaluation.scenes import Scene
from xactor_jax.release import PortraitRenderer

SIZE = 32


def pictures_of(levels, channel=slice(None)):
    """Flat pictures (t, 32, 32, 3) with the levels in one channel, or in all."""
    pictures = np.zeros((len(levels), SIZE, SIZE, 3), np.uint8)
    pictures[..., channel] = np.asarray(levels, np.uint8).reshape(
        (-1, 1, 1) if isinstance(channel, int) else (-1, 1, 1, 1)
    )
    return pictures


def scene(levels, audio=None, name="clip/0", channel=slice(None)):
    """A scene whose head stays in the middle."""
    pictures, box = pictures_of(levels, channel), np.float32([0.5, 0.5, 0.6])
    silence = np.zeros(len(levels) * SAMPLES_PER_FRAME, np.float32)
    boxes = np.tile(box, (len(levels), 1))
    return Scene(name, pictures, pictures, boxes, silence if audio is None else audio)


def clip(name, levels, channel=slice(None), audio=None, **truth):
    """A clip as it is stored."""
    silence = np.zeros(len(levels) * SAMPLES_PER_FRAME, np.int16)
    return Clip(
        clip=name,
        source=truth.pop("source", "footage"),
        identity=truth.pop("identity", "someone"),
        size=SIZE,
        frames=[encode_frame(picture) for picture in pictures_of(levels, channel)],
        head_box=np.tile(np.float32([0.5, 0.5, 0.5]), (len(levels), 1)),
        audio=silence if audio is None else np.round(32767 * audio).astype(np.int16),
        **truth,
    )


def actors(count, length=60):
    """Actors whose brightness is how far the jaw is open."""
    clips = []
    for k in range(count):
        jaw = 0.5 + 0.4 * np.sin(np.arange(length) / (3 + k))
        expression = np.zeros((length, 57), np.float16)
        expression[:, EXPRESSION_INDEX["jawOpen"]] = jaw
        clips.append(
            clip(
                f"take{k}",
                np.round(40 + 170 * jaw),
                source="actor",
                identity=f"actor{k}",
                motion=f"motion{k}",
                expression=expression,
                pose=np.zeros((length, 5), np.float32),
                gaze=np.zeros((length, 2), np.float32),
            )
        )
    return clips


def brightness(pictures, head_box):
    """A mouth meter: the brightest channel in [0, 1]."""
    assert len(pictures) == len(head_box)
    return pictures.mean(axis=(1, 2)).max(axis=1) / 255


class FlatRenderer(PortraitRenderer):
    """Reads brightness and repeats `gain` times its change on the portrait's own channels."""

    def __init__(self, gain=1.0):
        self.gain, self.boxes = gain, []
        self.config = SimpleNamespace(
            image_size=SIZE,
            view_scale=2.0,
            encoder=SimpleNamespace(image_size=16),
            denoiser=SimpleNamespace(temporal=False),
        )

    def encode(self, crops):
        return crops.mean(axis=(1, 2)).max(axis=1, keepdims=True).astype(np.float32)

    def see(self, portrait, crop):
        return portrait

    def noise(self, key):
        return None

    def render(self, seen, motion, box, noise, sampling):
        self.boxes.append(box)
        start = float(seen.mean(axis=(0, 1)).max())
        levels = np.round(start + self.gain * (motion[:, 0] - start))
        lit = (seen.mean(axis=(0, 1)) > start / 2).astype(np.uint8)
        return pictures_of(levels) * lit
