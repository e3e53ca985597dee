"""What a recipe says of a clip, and what every recipe is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from xactor_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listed:
    """A clip of a data set: a file, or a stretch of one.

    emotion: in the words of data/shards.py (`EMOTIONS`) where it is one of them, else in the data
    set's own; empty where none is published. intensity: 0 to 1, None where none is published.
    """

    path: str  # inside the data set's folder, with forward slashes
    person: str
    licence: str
    emotion: str = ""
    intensity: float | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None  # None: to the end of the file

    def __post_init__(self) -> None:
        if self.end_seconds is not None and not 0 <= self.start_seconds < self.end_seconds:
            raise ValueError(f"{self.path}: from {self.start_seconds} to {self.end_seconds} s")

    @property
    def name(self) -> str:
        """Unique in the data set: the path, and the stretch where it is not all of the file."""
        if self.start_seconds == 0 and self.end_seconds is None:
            return self.path
        end = "end" if self.end_seconds is None else f"{self.end_seconds:.2f}"
        return f"{self.path}#{self.start_seconds:.2f}-{end}"


class Recipe(Protocol):
    """One data set."""

    @property
    def layout(self) -> str:
        """What the folder is expected to hold, for messages."""
        ...

    @property
    def licence(self) -> str:
        """The terms under which the data set is published."""
        ...

    def clips(self, folder: Path) -> Iterable[Listed]:
        """The clips that are in the folder; files that are missing or foreign are left out."""
        ...


def read_json(path: Path) -> Any:
    """A data set's list. Raises InputError where it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path}: cannot be read as JSON; download it again") from None
