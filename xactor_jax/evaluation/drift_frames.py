"""What minutes of acting do to the picture: likeness, colour and sharpness against the portrait."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import jax
import numpy as np
from jaxtyping import Float, UInt8
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from xactor_jax.data.shards import Shards
from xactor_jax.evaluation.drift import MINUTE
from xactor_jax.evaluation.identity import grey_pixels
from xactor_jax.evaluation.scenes import Scene, driving_crops
from xactor_jax.models.renderer import NEUTRAL_BOX, RendererConfig, Sampling
from xactor_jax.release import PortraitRenderer

FRAMES = 16  # in the middle of each minute
_CROP = 1.1  # side of a driving crop in head boxes
_PER_CLIP = 5


class Likeness:
    """How far two faces are apart in what tells training actors apart: 1 for any two of them.

    Linear discriminants of 12x12 grey pixels, which name unseen actors almost without a fault (the
    table of the evaluation has the number), and need no network of anybody else's.
    """

    def __init__(self, pixels: Float[np.ndarray, "n p"], names: Sequence[str]):
        self._found = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
        self._found.fit(pixels, names)
        rows = self._found.transform(pixels)
        means = np.stack([rows[np.asarray(names) == name].mean(axis=0) for name in set(names)])
        apart = np.linalg.norm(means[:, None] - means, axis=-1)
        self._unit = apart[np.triu_indices(len(means), 1)].mean()

    @classmethod
    def of_actors(
        cls, shards: Shards, config: RendererConfig, advance: Callable[[int], None]
    ) -> Likeness:
        """From a few frames of every clip."""
        pixels, names = [], []
        for i in range(len(shards)):
            clip = shards[i]
            frames = np.linspace(0, len(clip) - 1, _PER_CLIP).astype(int)
            crops = driving_crops(clip, frames.tolist(), config.encoder.image_size)
            pixels.append(grey_pixels(crops))
            names += [clip.identity] * len(frames)
            advance(1)
        return cls(np.concatenate(pixels), names)

    def distance(
        self, crops: UInt8[np.ndarray, "n c c 3"], portrait: UInt8[np.ndarray, "c c 3"]
    ) -> float:
        """Of the mean face of some frames from a portrait."""
        rows = self._found.transform(grey_pixels(crops)).mean(axis=0)
        own = self._found.transform(grey_pixels(portrait[None]))[0]
        return float(np.linalg.norm(rows - own) / self._unit)


def head_of(pictures: UInt8[np.ndarray, "n s s 3"], config: RendererConfig) -> np.ndarray:
    """The middle of pictures, as large as a driving crop."""
    side = pictures.shape[1]
    edge = round(side * (1 - _CROP / config.view_scale) / 2)
    return pictures[:, edge : side - edge, edge : side - edge]


def sharpness(pictures: UInt8[np.ndarray, "n s s 3"]) -> float:
    """Mean squared Laplacian of the grey pictures."""
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in pictures]
    return float(np.mean([np.mean(cv2.Laplacian(grey, cv2.CV_32F) ** 2) for grey in greys]))


def curves(
    acted: Float[np.ndarray, "b t d"],
    scenes: Sequence[Scene],
    renderer: PortraitRenderer,
    likeness: Likeness,
    sampling: Sampling,
    seed: int,
    advance: Callable[[int], None],
) -> dict[str, list[float]]:
    """One number a minute, of `FRAMES` frames in its middle, mean over the performances."""
    noise = renderer.noise(jax.random.key(seed))
    box = np.tile(np.array(NEUTRAL_BOX, np.float32), (FRAMES, 1))
    seen = [renderer.see(scene.pictures[0], scene.crops[0]) for scene in scenes]
    found: dict[str, list[float]] = {"identity": [], "colour": [], "sharpness": []}
    for middle in range(MINUTE // 2, acted.shape[1] - MINUTE // 2 + 1, MINUTE):
        numbers = []
        for latents, scene, reference in zip(acted, scenes, seen, strict=True):
            motion = latents[middle : middle + FRAMES].astype(np.float32)
            frames = renderer.render(reference, motion, box, noise, sampling)
            numbers.append(_against(frames, scene, renderer.config, likeness))
            advance(1)
        for name, value in zip(found, np.mean(numbers, axis=0), strict=True):
            found[name].append(float(value))
    return found


def _against(
    frames: UInt8[np.ndarray, "n s s 3"], scene: Scene, config: RendererConfig, likeness: Likeness
) -> tuple[float, float, float]:
    """Distances of identity and of the mean colour, in levels, and the share of sharpness."""
    portrait = scene.pictures[:1]
    means = [pictures.reshape(-1, 3).mean(axis=0) for pictures in (frames, portrait)]
    return (
        likeness.distance(head_of(frames, config), head_of(portrait, config)[0]),
        float(np.abs(means[0] - means[1]).mean()),
        sharpness(frames) / sharpness(portrait),
    )
