"""Published data sets of talking people: how each lies on disk, and under which licence.

A recipe maps the layout that a data set's own tools leave behind to clips; nothing is downloaded.
docs/datasets.md lists them. Whether you may use a data set is between you and its makers.
"""

from __future__ import annotations

from pathlib import Path

from xactor_jax.errors import InputError
from xactor_jax.recipes.listed import Listed, Recipe

NAMES = (
    "celebv_hq",
    "celebv_text",
    "crema_d",
    "hallo3",
    "hdtf",
    "mead",
    "ravdess",
    "talkvid",
)


def recipe(name: str) -> Recipe:
    """The recipe of a data set. Raises InputError for a name that is none of `NAMES`."""
    match name:
        case "celebv_hq":
            from xactor_jax.recipes.celebv import CelebVHQ

            return CelebVHQ()
        case "celebv_text":
            from xactor_jax.recipes.celebv import CelebVText

            return CelebVText()
        case "crema_d":
            from xactor_jax.recipes.crema_d import CremaD

            return CremaD()
        case "hallo3":
            from xactor_jax.recipes.hallo3 import Hallo3

            return Hallo3()
        case "hdtf":
            from xactor_jax.recipes.hdtf import HDTF

            return HDTF()
        case "mead":
            from xactor_jax.recipes.mead import MEAD

            return MEAD()
        case "ravdess":
            from xactor_jax.recipes.ravdess import RAVDESS

            return RAVDESS()
        case "talkvid":
            from xactor_jax.recipes.talkvid import TalkVid

            return TalkVid()
    raise InputError(f"--recipe={name}: use one of {', '.join(NAMES)}")


def find_clips(name: str, folder: Path) -> list[Listed]:
    """The clips of a data set that are in its folder, in order of their files and times.

    Raises InputError where the recipe is unknown, or the folder is not laid out as it says.
    """
    chosen = recipe(name)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(chosen.clips(folder), key=lambda clip: (clip.path, clip.start_seconds))
    if not found:
        raise InputError(f"{folder}: no clip of {name} here; the recipe expects {chosen.layout}")
    return found
