"""MEAD: actors who say sentences in eight emotions at three levels, seen from seven sides.

K. Wang et al., *MEAD: A Large-scale Audio-visual Dataset for Emotional Talking-face Generation*,
ECCV 2020. https://wywu.github.io/projects/MEAD/MEAD.html

    M003/video/front/angry/level_1/001.mp4
    M003/audio/angry/level_1/001.m4a           not used

Folders of people are those of the README of uniBruce/Mead; the rest is how public code finds the
films (`MEAD/*/video/front/*/level_*/*.mp4`). In a tenth of the groups the numbers under `audio` are
not those under `video`, so the sound is taken from the film itself; films have 30 frames a second
(a count by POPAYR/nemo-train, DATA.md), which preparation brings to 25 by time. The licence is that
of the project page, as others report it: read it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xactor_jax.recipes.listed import Listed

_LEVELS = {"level_1": 1 / 3, "level_2": 2 / 3, "level_3": 1.0}


class MEAD:
    """People by their folder, the frontal view alone, intensities a third apart."""

    layout = "PERSON/video/front/EMOTION/level_N/NUMBER.mp4"
    licence = "MEAD terms of use: research only"

    def clips(self, folder: Path) -> Iterator[Listed]:
        """Frontal films; neutral ones have no intensity."""
        for path in folder.glob("*/video/front/*/level_*/*.mp4"):
            person, _, _, emotion, level, _ = path.relative_to(folder).parts
            if level not in _LEVELS:
                continue
            yield Listed(
                path=path.relative_to(folder).as_posix(),
                person=person,
                licence=self.licence,
                emotion=emotion,
                intensity=None if emotion == "neutral" else _LEVELS[level],
            )
