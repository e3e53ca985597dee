"""HDTF: speeches and interviews in high definition, 362 videos of YouTube.

Z. Zhang et al., *Flow-guided One-shot Talking Face Generation with a High-resolution Audio-visual
Dataset*, CVPR 2021. https://github.com/MRzzm/HDTF

Its repository holds lists, not films. Under `HDTF_dataset`, for the parts RD, WDA and WRA:

    RD_annotion_time.txt              Radio11.mp4 00:30-01:00 01:30-02:30

and the README asks to cut these stretches to `Radio11_0.mp4`, `Radio11_1.mp4`. Taken are, in this
order: clips so cut, anywhere in the folder; clips of universome/HDTF's download.py
(`RD_Radio11_000.mp4`); and whole videos (`Radio11.mp4`, or its `_videos_raw/RD_Radio11.mp4`), cut
here by the list. Spelling, times and names were checked in both repositories; the licence is that
of MRzzm/HDTF's README, for the lists: the films belong to those who made them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xactor_jax.errors import InputError
from xactor_jax.recipes.listed import Listed

_PARTS = ("RD", "WDA", "WRA")
_STRETCH = re.compile(r"(?:(\d+):)?(\d+):(\d+)-(?:(\d+):)?(\d+):(\d+)")


class HDTF:
    """A person is a video: nobody says who is in two of them."""

    layout = "HDTF_dataset/*_annotion_time.txt and films named after it"
    licence = "CC BY 4.0"

    def clips(self, folder: Path) -> Iterator[Listed]:
        """Clips that are cut already, else stretches of whole videos."""
        files = {path.name: path for path in sorted(folder.rglob("*.mp4"))}
        for part in _PARTS:
            lists = sorted(folder.rglob(f"{part}_annotion_time.txt"))
            for video, stretches in _times(lists[0]) if lists else ():
                whole = files.get(f"{part}_{video}.mp4") or files.get(f"{video}.mp4")
                for n, (start, end) in enumerate(stretches):
                    cut = files.get(f"{video}_{n}.mp4") or files.get(f"{part}_{video}_{n:03d}.mp4")
                    if (path := cut or whole) is None:
                        continue
                    yield Listed(
                        path=path.relative_to(folder).as_posix(),
                        person=video,
                        licence=self.licence,
                        start_seconds=0.0 if cut else start,
                        end_seconds=None if cut else end,
                    )


def _times(path: Path) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """The name of each video in a list, and its stretches in seconds."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: cannot be read as UTF-8; download it again") from None
    for line in lines:
        name, *texts = line.split() or [""]
        stretches = []
        for text in texts:
            if (found := _STRETCH.fullmatch(text)) is None:
                raise InputError(f"{path}: {text!r} is no time such as 00:30-01:00")
            h, m, s, hh, mm, ss = (int(number or 0) for number in found.groups())
            start, end = 3600.0 * h + 60 * m + s, 3600.0 * hh + 60 * mm + ss
            if end <= start:
                raise InputError(f"{path}: {text!r} of {name} ends before it begins; correct it")
            stretches.append((start, end))
        if stretches:
            yield name.removesuffix(".mp4"), stretches
