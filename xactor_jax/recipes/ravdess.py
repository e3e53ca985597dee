"""RAVDESS: 24 actors who say two sentences, and sing them, in eight emotions.

S. R. Livingstone, F. A. Russo, *The Ryerson Audio-Visual Database of Emotional Speech and Song
(RAVDESS)*, PLoS ONE 13(5), 2018. https://zenodo.org/record/1188976

    Actor_01/01-01-03-01-01-01-01.mp4

The seven numbers are modality (01 film with sound, 02 without, 03 sound alone), channel (01 speech,
02 song), emotion, intensity (01 normal, 02 strong; neutral has no strong one), sentence, repetition
and actor: the table of the Zenodo record, which also names the licence. Its zips unpack to folders
of actors, in a folder of their own or not. Films have 720 lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xactor_jax.recipes.listed import Listed

_EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
_INTENSITIES = {"01": 0.5, "02": 1.0}


class RAVDESS:
    """Films with sound in which an actor speaks; normal intensity counts as half of the strong."""

    layout = "Actor_NN/01-01-EMOTION-INTENSITY-SENTENCE-REPETITION-ACTOR.mp4"
    licence = "CC BY-NC-SA 4.0"

    def clips(self, folder: Path) -> Iterator[Listed]:
        """Songs, films without sound and sound alone are left out."""
        for path in folder.rglob("01-01-*.mp4"):
            numbers = path.stem.split("-")
            if len(numbers) != 7 or numbers[2] not in _EMOTIONS or numbers[3] not in _INTENSITIES:
                continue
            emotion = _EMOTIONS[numbers[2]]
            yield Listed(
                path=path.relative_to(folder).as_posix(),
                person=f"Actor_{numbers[6]}",
                licence=self.licence,
                emotion=emotion,
                intensity=None if emotion == "neutral" else _INTENSITIES[numbers[3]],
            )
