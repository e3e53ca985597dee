"""CelebV-HQ and CelebV-Text: people on YouTube, a few seconds each, with what is to be seen.

H. Zhu et al., *CelebV-HQ: A Large-Scale Video Facial Attributes Dataset*, ECCV 2022,
https://github.com/CelebV-HQ/CelebV-HQ; J. Yu et al., *CelebV-Text: A Large-Scale Facial Text-Video
Dataset*, CVPR 2023, https://github.com/celebv-text/CelebV-Text

    celebvhq_info.json                        (celebvtext_info.json)
    downloaded_celebvhq/processed/M2Ohb0FAaJU_1.mp4     cut and cropped
    downloaded_celebvhq/raw/M2Ohb0FAaJU.mp4             whole, cut here by the list

as their download_and_process.py leaves it, which stops at the whole videos unless a line of it is
changed. The list's `clips` have `ytb_id`, `duration` (`start_sec`, `end_sec`; in CelebV-Text's
README also `start_frame`, `end_frame`, with seconds in them) and, in CelebV-HQ,
`attributes.emotion`: one label, or several with times. All of it was checked in the two READMEs and
scripts, and so were the terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xactor_jax.errors import InputError
from xactor_jax.recipes.listed import Listed, read_json

# Their words for what data/shards.py calls otherwise.
_WORDS = {"anger": "angry", "happiness": "happy", "sadness": "sad", "surprise": "surprised"}


class CelebVHQ:
    """A person is a video: nobody says who is in two of them."""

    index = "celebvhq_info.json"
    layout = "celebvhq_info.json and */processed/CLIP.mp4 or */raw/VIDEO.mp4"
    licence = "CelebV-HQ agreement: non-commercial research only"

    def clips(self, folder: Path) -> Iterator[Listed]:
        """Clips that are cut already, else stretches of whole videos; bad rows are left out."""
        if not (lists := sorted(folder.rglob(self.index))):
            raise InputError(f"{folder}: {self.index} is missing; it comes with the data set")
        files = {path.name: path for path in sorted(folder.rglob("*.mp4"))}
        clips = read_json(lists[0])
        found, bad = 0, not isinstance(clips, dict) or not isinstance(clips.get("clips"), dict)
        for name, clip in () if bad else clips["clips"].items():
            try:
                listed = self._listed(folder, files, name, clip)
            except (AttributeError, KeyError, TypeError, ValueError):
                bad = True  # one row is not the whole list
                continue
            if listed:
                found += 1
                yield listed
        if bad and not found:
            raise InputError(f"{lists[0]}: not a list of clips; download it again")

    def _listed(
        self, folder: Path, files: dict[str, Path], name: str, clip: dict[str, Any]
    ) -> Listed | None:
        cut, whole = files.get(f"{name}.mp4"), files.get(f"{clip['ytb_id']}.mp4")
        if (path := cut or whole) is None:
            return None
        start, end = (0.0, None) if cut else _seconds(clip["duration"])
        return Listed(
            path=path.relative_to(folder).as_posix(),
            person=clip["ytb_id"],
            licence=self.licence,
            emotion=_emotion(clip),
            start_seconds=start,
            end_seconds=end,
        )


class CelebVText(CelebVHQ):
    """Emotions are described in texts of their own, and not read."""

    index = "celebvtext_info.json"
    layout = "celebvtext_info.json and */processed/CLIP.mp4 or */raw/VIDEO.mp4"
    licence = "CelebV-Text agreement: non-commercial research only"


def _seconds(duration: dict[str, float]) -> tuple[float, float]:
    start = duration["start_sec"] if "start_sec" in duration else duration["start_frame"]
    end = duration["end_sec"] if "end_sec" in duration else duration["end_frame"]
    return float(start), float(end)


def _emotion(clip: dict[str, Any]) -> str:
    """The clip's one emotion; nothing where there are several."""
    found = clip.get("attributes", {}).get("emotion", {})
    if not found or found["sep_flag"]:
        return ""
    return _WORDS.get(found["labels"], found["labels"])
