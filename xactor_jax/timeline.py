"""A script of directions: which emotion, pose, gaze, blinks and stillness, from when to when.

A JSON file holds a list; each entry sets what it names in its stretch of time, in seconds, and
later entries replace earlier ones. Without `to` an entry lasts to the end.

    [
      {"from": 0, "to": 4, "emotion": "happy", "intensity": 0.8},
      {"from": 2, "yaw": 15, "pitch": -5},
      {"from": 5, "to": 5.2, "blink": 1},
      {"from": 6, "to": 8, "gaze": [10, 0], "stillness": 1}
    ]
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xactor_jax.data.direction import Rows, felt, free, tell
from xactor_jax.data.shards import EMOTIONS, FRAME_RATE
from xactor_jax.errors import InputError

# What an entry may set, in which range; angles in degrees.
_RANGES = {
    "intensity": (0, 1),
    "yaw": (-45, 45),
    "pitch": (-45, 45),
    "roll": (-45, 45),
    "gaze": (-45, 45),
    "blink": (0, 1),
    "stillness": (0, 1),
}
_ANGLES = ("yaw", "pitch", "roll", "gaze")
_NAMES = ("from", "to", "emotion", *_RANGES)
_LATEST = 10_000_000  # seconds


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is told in the frames from `start` to before `stop`; `values` as `tell` takes them."""

    start: int
    stop: float  # infinite: to the end
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Directions for a performance of any length."""

    entries: tuple[Entry, ...] = ()

    def frames(self, start: int, stop: int) -> Rows:
        """What is told in the frames from `start` to before `stop` (data/direction.py)."""
        rows = free(stop - start)
        for entry in self.entries:
            first, last = max(entry.start, start), min(entry.stop, stop)
            if first < last:
                for kind, value in entry.values.items():
                    tell(rows, kind, value, slice(first - start, int(last) - start))
        return rows


def read_timeline(path: str | Path, frames: int) -> Timeline:
    """The timeline of a JSON file, for a performance of so many frames.

    Raises InputError naming the file, the entry and the cure; also where an entry begins after the
    last frame, as it does when it is in milliseconds.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(entries, list):
        raise InputError(f'{path}: give a list of entries, as [{{"from": 0, "emotion": "happy"}}]')
    timeline = Timeline(
        tuple(_entry(each, f"{path}: entry {n}") for n, each in enumerate(entries, 1))
    )
    for n, entry in enumerate(timeline.entries, 1):
        if entry.start >= frames:
            begin, end = entry.start / FRAME_RATE, frames / FRAME_RATE
            raise InputError(
                f"{path}: entry {n} begins at {begin:g} s, but all ends at {end:g} s; "
                "times are seconds"
            )
    return timeline


def _entry(given: Any, where: str) -> Entry:
    if not isinstance(given, dict):
        raise InputError(f"{where}: give names and values in braces")
    unknown = [name for name in given if name not in _NAMES]
    if unknown:
        raise InputError(f"{where}: unknown {unknown[0]!r}; use {', '.join(_NAMES)}")
    start = _number(given.get("from", 0), "from", where)
    stop = _number(given["to"], "to", where) if "to" in given else math.inf
    if not 0 <= start < stop:
        raise InputError(f"{where}: 'from' must be 0 or later and before 'to'")
    if max(start, stop if "to" in given else 0) > _LATEST:
        raise InputError(f"{where}: 'from' and 'to' are seconds; use {_LATEST} at most")
    values = {
        name: _value(value, name, where)
        for name, value in given.items()
        if name in _RANGES and name != "intensity"
    }
    if "emotion" in given:
        values["emotion"] = _emotion(given, where)
    elif "intensity" in given:
        raise InputError(f"{where}: 'intensity' of what? name an 'emotion' too")
    if not values:
        raise InputError(f"{where}: sets nothing; name one of {', '.join(_NAMES[2:])}")
    first = round(start * FRAME_RATE)
    last = round(stop * FRAME_RATE) if math.isfinite(stop) else stop
    return Entry(first, max(last, first + 1), values)


def _emotion(given: Mapping[str, Any], where: str) -> np.ndarray:
    name = given["emotion"]
    if name not in EMOTIONS:
        raise InputError(f"{where}: unknown emotion {name!r}; use {', '.join(EMOTIONS)}")
    return felt(EMOTIONS.index(name), _value(given.get("intensity", 1), "intensity", where))


def _value(value: Any, name: str, where: str) -> Any:
    """A number, or the two of a gaze, in its range; angles in radians."""
    lowest, highest = _RANGES[name]
    pair = name == "gaze"
    if pair and not (isinstance(value, list) and len(value) == 2):
        raise InputError(f"{where}: 'gaze' is [degrees right, degrees up]")
    numbers = [_number(each, name, where) for each in (value if pair else [value])]
    if not all(lowest <= number <= highest for number in numbers):
        raise InputError(f"{where}: '{name}' is {value}; use {lowest} to {highest}")
    found = np.radians(numbers) if name in _ANGLES else np.asarray(numbers, float)
    return found if pair else float(found[0])


def _number(value: Any, name: str, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: '{name}' must be a number, not {value!r:.40}")
    return number
