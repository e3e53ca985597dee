"""CREMA-D: 91 actors who say twelve sentences in six emotions.

H. Cao et al., *CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset*, IEEE Transactions on
Affective Computing 5(4), 2014. https://github.com/CheyneyComputerScience/CREMA-D

    VideoFlash/1001_IEO_ANG_HI.flv

The name is actor, sentence, emotion and level. README.md of the repository says where the films
are and that low, medium and high levels stand for 20, 50 and 80 of 100; LICENSE.txt has the
licence. Most clips have no level (XX). The files are kept in Git LFS: without it they are texts,
which preparation refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xactor_jax.recipes.listed import Listed

_NAME = re.compile(r"(\d{4})_[A-Z]{3}_([A-Z]{3})_(LO|MD|HI|XX?)$")
_EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
_LEVELS = {"LO": 0.2, "MD": 0.5, "HI": 0.8}


class CremaD:
    """The emotion that the actor was asked for; raters often saw another."""

    layout = "VideoFlash/ACTOR_SENTENCE_EMOTION_LEVEL.flv"
    licence = "Open Database License 1.0; contents: Database Contents License 1.0"

    def clips(self, folder: Path) -> Iterator[Listed]:
        """Clips without a level have no intensity."""
        for path in folder.glob("VideoFlash/*.flv"):
            found = _NAME.match(path.stem)
            if not found or found[2] not in _EMOTIONS:
                continue
            yield Listed(
                path=path.relative_to(folder).as_posix(),
                person=found[1],
                licence=self.licence,
                emotion=_EMOTIONS[found[2]],
                intensity=_LEVELS.get(found[3]),
            )
