"""Which clips are for training, which for validation, and which for testing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from xactor_jax.preparation.settings import Splits

TRAIN, VALIDATION, TEST = "train", "validation", "test"
NAMES = (TRAIN, VALIDATION, TEST)


def assign(clips: Sequence[tuple[str, str]], settings: Splits) -> list[str]:
    """The split of every clip, given as (file, speaker).

    A hash decides: of the speaker, who is then in one split only, or of the file where there are
    fewer than `settings.speakers`. So what is added later moves nothing, with two exceptions: with
    that many speakers all are sorted anew, and who fills a split that was empty by chance goes back
    when somebody comes whom the hash sends there.
    """
    speakers = {speaker for _, speaker in clips}
    by_speaker = settings.by == "speaker" or (
        settings.by == "auto" and len(speakers) >= settings.speakers
    )
    units = [speaker if by_speaker else file for file, speaker in clips]
    places = {unit: place(unit, settings.seed) for unit in units}
    chosen = {unit: _of_place(where, settings) for unit, where in places.items()}
    order = sorted(places, key=lambda unit: (places[unit], unit))
    # Trainings need a test split, and one that is wanted is not left empty by chance.
    wanted = [
        name
        for name, share in ((TEST, settings.test), (VALIDATION, settings.validation))
        if share > 0
    ]
    for name in wanted:
        free = [unit for unit in order if chosen[unit] == TRAIN]
        if name not in chosen.values() and len(free) > 1:
            chosen[free[0]] = name
    return [chosen[unit] for unit in units]


def place(name: str, seed: int) -> float:
    """Where a name lies in [0, 1), by a hash."""
    text = name if seed == 0 else f"{seed}:{name}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def _of_place(where: float, settings: Splits) -> str:
    if where < settings.test:
        return TEST
    return VALIDATION if where < settings.test + settings.validation else TRAIN
