"""The drift experiment's numbers as tables and curves, in a page whose words are kept."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import stdev
from typing import Any

from xactor_jax.evaluation.drift import summary
from xactor_jax.evaluation.plots import drift

BEGIN, END = "<!-- measured: written by experiments/drift.py -->", "<!-- /measured -->"
_WAYS = {
    "teacher_forcing": "(a) teacher forcing",
    "independent": "(b) independent levels",
    "mixture": "(c) mixture",
    "mixture_again": "(c) trained again",
    "chunk_25": "(c) with chunks of 25 frames",
    "shared_modulation": "(c) likewise, with one modulation",
    "own_history": "(d) mixture, then own history",
    "own_history_25": "(d) with chunks of 25 frames",
    "full_sequence": "(e) full sequence, windows",
}
_HEADINGS = {
    "Fréchet, first minute": lambda run: run["minutes"]["frechet"][0],
    "last": lambda run: run["minutes"]["frechet"][-1],
    "last / first": lambda run: run["frechet_ratio"],
    "deviation": lambda run: (run["deviation_least"], run["deviation_most"]),
    "velocity": lambda run: (run["velocity_least"], run["velocity_most"]),
    "mouth r, first": lambda run: run["minutes"]["mouth_r"][0],
    "last / first ": lambda run: run["mouth_ratio"],
    "emotion heard": lambda run: run["emotion_announced"],
    "then held": lambda run: run["emotion_held"],
    "emotion told": lambda run: run.get("told_announced"),
    "then held ": lambda run: run.get("told_held"),
    "±": lambda run: _error(run["minutes"].get("told_held")),
    "yaw range": lambda run: run["minutes"]["yaw_range"][-1],
    "blinks": lambda run: run["minutes"]["blinks"][-1],
}
_OTHER_WEIGHTS = "\\* sampled from weights of another training of the same variant"
_OF_FRAMES = {
    "likeness lost, first": ("identity", 0),
    "last": ("identity", -1),
    "colour, first": ("colour", 0),
    "last ": ("colour", -1),
    "sharpness, first": ("sharpness", 0),
    " last": ("sharpness", -1),
}


def write_report(folder: Path, results: Mapping[str, Any]) -> None:
    """Renew what was measured in `drift.md` and `drift.png`; the rest of the page stays."""
    runs = results["runs"]
    other = {name for name, run in runs.items() if _other_weights(run, runs)}
    ways = {name: runs[key] for key, name in _WAYS.items() if key in runs}
    repeated = {name: run for name, run in runs.items() if run["made_by"].get("repeated")}
    others = {name: run for name, run in runs.items() if name not in {*_WAYS, *repeated}}
    parts = []
    if ways:
        drift(folder / "drift.png", {name: run["minutes"] for name, run in ways.items()})
        shown = _numbers(ways)
        ways = shortened(ways)
        parts += [_sizes(ways), _table(list(_HEADINGS), shown)]
        frames = {
            name: [run["minutes"][key][place] for key, place in _OF_FRAMES.values()]
            for name, run in ways.items()
            if "identity" in run["minutes"]
        }
        parts += [_table(list(_OF_FRAMES), frames), "![curves](drift.png)"]
    if repeated:
        shown = _numbers(repeated, other)
        title = "Every voice's first minute, again and again. "
        parts += [title + _sizes(repeated), _table(list(_HEADINGS), shown)]
    if others:
        alike = ("mixture", "mixture_again", "chunk_25")
        compared = {name: runs[name] for name in alike if name in runs} | others
        compared = shortened(compared)
        shown = _numbers(compared, other)
        parts += [_sizes(compared), _table(list(_HEADINGS), shown)]
    parts += [_OTHER_WEIGHTS] if other else []
    _replace(folder / "drift.md", "\n\n".join(parts))


def _numbers(runs: Mapping[str, Any], marked: Collection[str] = ()) -> dict[str, list[Any]]:
    """Rows of a table under `_HEADINGS`; names that are marked end with a star."""
    return {
        f"{name} \\*" if name in marked else name: [pick(run) for pick in _HEADINGS.values()]
        for name, run in runs.items()
    }


def _other_weights(run: Mapping[str, Any], runs: Mapping[str, Any]) -> bool:
    """Whether a run sampled other weights than the one that is called as its variant."""
    made_by = run["made_by"]
    own = runs.get(made_by.get("variant"), run)["made_by"]
    return made_by.get("weights") != own.get("weights")


def shortened(runs: Mapping[str, Any]) -> dict[str, Any]:
    """Runs over the minutes that all of them have, so that they can be compared."""
    least = min(run["n"]["minutes"] for run in runs.values())
    found = {}
    for name, run in runs.items():
        if run["n"]["minutes"] == least:
            found[name] = run
            continue
        minutes = {
            key: [math.nan if value is None else value for value in values[:least]]
            for key, values in run["minutes"].items()
        }
        n = run["n"] | {"minutes": least}
        found[name] = run | summary(minutes) | {"minutes": minutes, "n": n}
    return found


def _error(minutes: list[float | None] | None) -> float | None:
    """Standard error of a mean over minutes."""
    values = [value for value in minutes or [] if value is not None and value == value]
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _sizes(runs: Mapping[str, Any]) -> str:
    n = next(iter(runs.values()))["n"]
    real = next(iter(runs.values()))["emotion_real"]
    return (
        f"{n['voices']} voices of {n['minutes']} minutes each. Emotions of real motion are "
        f"recognised in {_number(real)} of the frames."
    )


def _table(headings: list[str], rows: Mapping[str, list[Any]]) -> str:
    """A Markdown table."""
    lines = [["", *(heading.strip() for heading in headings)], ["---"] * (len(headings) + 1)]
    lines += [[name, *map(_number, values)] for name, values in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(_number, value))
    return "-" if value is None or value != value else f"{value:.3g}"


def _replace(path: Path, measured: str) -> None:
    """Put `measured` between the page's marks, or at its end."""
    page = path.read_text() if path.is_file() else "# The drift experiment\n"
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before.rstrip()}\n\n{BEGIN}\n\n{measured}\n\n{END}\n{after.lstrip()}")
