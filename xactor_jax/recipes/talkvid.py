"""TalkVid: 7,729 people who talk on YouTube in fifteen languages, 1,244 hours.

S. Chen et al., *TalkVid: A Large-Scale Diversified Dataset for Audio-Driven Talking Head
Synthesis*, 2025. https://github.com/FreedomIntelligence/TalkVid

    filtered_video_clips.json
    clips_output/Tr6MMsoWAog/Tr6MMsoWAog_001_0.100_5.142.mp4

as data_pipeline/0_video_download/download_clips.py leaves it. Names hold the video, a number, and
the seconds in it, to milliseconds; the list has `info` (`Video Link`, `Person ID`), `start-time`
and `end-time`. Both and the licence were checked in the READMEs of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

from xactor_jax.errors import InputError
from xactor_jax.recipes.listed import Listed, read_json

_NAME = re.compile(r"(.+)_\d+_(\d+\.\d+)_(\d+\.\d+)$")
_LIST = "filtered_video_clips"
_AWAY = 0.01  # seconds by which a name may differ from the list


class TalkVid:
    """A person is whom the list says; without a list, or a number in it, a video."""

    layout = "clips_output/VIDEO/VIDEO_NNN_START_END.mp4"
    licence = "CC BY-NC 4.0"

    def clips(self, folder: Path) -> Iterator[Listed]:
        """All clips that were downloaded."""
        people = _people(folder)
        for path in folder.rglob("*.mp4"):
            found = _NAME.match(path.stem)
            if not found or path.parent.name != found[1]:
                continue
            start, end = float(found[2]), float(found[3])
            known = (
                person
                for a, b, person in people.get(found[1], ())
                if abs(a - start) < _AWAY and abs(b - end) < _AWAY
            )
            yield Listed(
                path=path.relative_to(folder).as_posix(),
                person=next(known, found[1]),
                licence=self.licence,
            )


def _people(folder: Path) -> dict[str, list[tuple[float, float, str]]]:
    """For each video, start and end of its clips and who is seen: of all lists in the folder.

    Rows that are not as they should be are left out, and so are files that are no lists. Raises
    InputError where the one that is named as the data set's has no row to use.
    """
    people: dict[str, list[tuple[float, float, str]]] = {}
    for path in sorted(folder.glob("*.json")):
        named = path.name.startswith(_LIST)
        try:
            rows, found = read_json(path), 0
        except InputError:
            if named:
                raise
            continue
        for row in rows if isinstance(rows, list) else ():
            try:
                video, person = _video(row["info"]["Video Link"]), row["info"].get("Person ID")
                times = float(row["start-time"]), float(row["end-time"])
            except (AttributeError, IndexError, KeyError, TypeError, ValueError):
                continue
            found += 1
            if person:
                people.setdefault(video, []).append((*times, f"person_{person}"))
        if named and not found:
            raise InputError(f"{path}: not a list of clips; download it again")
    return people


def _video(link: Any) -> str:
    """The video that a link of YouTube leads to."""
    parts = urlparse(link)
    return parse_qs(parts.query)["v"][0] if parts.query else parts.path.rpartition("/")[2]
