"""Hallo3's training data: 70 hours of talking people, and some wild scenes.

J. Cui et al., *Hallo3: Highly Dynamic and Realistic Portrait Image Animation with Video Diffusion
Transformer*, CVPR 2025. https://huggingface.co/datasets/fudan-generative-ai/hallo3_training_data

    videos/0001.mp4
    caption/0001.txt                  not used

as its `.tgz` files unpack, after the README of fudan-generative-vision/hallo3; several such folders
may lie side by side. Nothing says who is seen, so every film counts as a person of its own: splits
may hold one person twice. Four in five films have 24 frames a second, and half of them are shorter
than three seconds (a count by POPAYR/nemo-train, DATA.md). The terms are those of its page, which
could not be read here: see there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xactor_jax.recipes.listed import Listed


class Hallo3:
    """Every film is a clip."""

    layout = "videos/NUMBER.mp4"
    licence = "see https://huggingface.co/datasets/fudan-generative-ai/hallo3_training_data"

    def clips(self, folder: Path) -> Iterator[Listed]:
        """Films of this folder, and of those in it."""
        for pattern in ("videos/*.mp4", "*/videos/*.mp4"):
            for path in folder.glob(pattern):
                name = path.relative_to(folder).as_posix()
                yield Listed(path=name, person=name.removesuffix(".mp4"), licence=self.licence)
