"""Which clips are for training, which for validation, and which for testing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from xactor_jax.preparation.settings import Splits

TRAIN, VALIDATION, TEST = "train", "validation", "test"
NAMES = (TRAIN, VALIDATION, TEST)


def assign(clips: Sequence[tuple[str, str]], settings: Splits) -> list[str]:
    """The split of every clip, given as (file, speaker).

    A hash decides, so that a clip stays where it is when others are added: of the speaker, who is
    then in one split only, or of the file where there are too few speakers for that.
    """
    speakers = {speaker for _, speaker in clips}
    by_speaker = settings.by == "speaker" or (
        settings.by == "auto" and len(speakers) >= settings.speakers
    )
    if not by_speaker:
        return [_of_place(place(file, settings.seed), settings) for file, _ in clips]
    places = {speaker: place(speaker, settings.seed) for speaker in speakers}
    chosen = {speaker: _of_place(where, settings) for speaker, where in places.items()}
    order = sorted(places, key=lambda speaker: (places[speaker], speaker))
    # A split that is wanted is not left empty by chance.
    wanted = [
        name
        for name, share in ((TEST, settings.test), (VALIDATION, settings.validation))
        if share > 0
    ]
    for name in wanted:
        free = [speaker for speaker in order if chosen[speaker] == TRAIN]
        if name not in chosen.values() and len(free) > 1:
            chosen[free[0]] = name
    return [chosen[speaker] for _, speaker in clips]


def place(name: str, seed: int) -> float:
    """Where a name lies in [0, 1), by a hash."""
    text = name if seed == 0 else f"{seed}:{name}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def _of_place(where: float, settings: Splits) -> str:
    if where < settings.test:
        return TEST
    return VALIDATION if where < settings.test + settings.validation else TRAIN
