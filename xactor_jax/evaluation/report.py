"""What was measured, next to what was aimed at: a table and a JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Numbers = Mapping[str, Mapping[str, Any]]
"""Section -> name -> number."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """A number of a section, its goal and its baselines (text -> name of the number, or value)."""

    section: str
    what: str
    name: str
    least: float | None = None
    most: float | None = None
    baselines: Mapping[str, str | float] = dataclasses.field(default_factory=dict)

    @property
    def goal(self) -> str:
        """The goal in words."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        if self.least is not None:
            return f"≥ {self.least:g}"
        return "" if self.most is None else f"≤ {self.most:g}"

    def met(self, value: float) -> bool | None:
        """Whether a value reaches the goal; None where there is none."""
        if self.least is None and self.most is None:
            return None
        low = -math.inf if self.least is None else self.least
        high = math.inf if self.most is None else self.most
        return bool(low <= value <= high)


SECTIONS = {
    "reenactment": "Reenactment of held-out footage",
    "cross_identity": "Reenactment on another identity, actors",
    "identity": "Motion latent of unseen actors, linear probes",
    "motion": "Speech to motion on held-out footage, rendered",
    "speech": "Speech to motion on unheard recordings, rendered",
    "direction": "Performers that are told what held-out actors did",
    "drift": "Long acting, the last minute against the first",
}
_STILL = {"reference repeated": 0.0}
BARS = (
    Bar("reenactment", "mouth PSNR above the reference, dB", "psnr_mouth_gain", 3, None, _STILL),
    Bar("reenactment", "PSNR above the reference, dB", "psnr_gain", baselines=_STILL),
    Bar("reenactment", "SSIM", "ssim", baselines={"reference repeated": "ssim_still"}),
    Bar("reenactment", "mouth opening, r with the truth", "mouth_r", 0.85, None, _STILL),
    Bar("reenactment", "mouth opening, amplitude / truth", "mouth_amplitude", 0.8, None, _STILL),
    Bar("reenactment", "frame-to-frame change / truth", "change_ratio", None, 1.3, _STILL),
    Bar("cross_identity", "PSNR above the reference, dB", "psnr_gain", 3, None, _STILL),
    Bar(
        "cross_identity", "mouth PSNR above the reference, dB", "psnr_mouth_gain", baselines=_STILL
    ),
    Bar("cross_identity", "SSIM", "ssim", baselines={"reference repeated": "ssim_still"}),
    *(
        Bar("identity", f"{name}, r", name, least, None, {"12x12 pixels": f"{name}_pixels"})
        for name, least in (("yaw", 0.9), ("jaw", 0.9), ("smile", 0.7), ("blink", 0.7))
    ),
    Bar("identity", "brows (mean of two), r", "brows", 0.7, None, {"12x12 pixels": "brows_pixels"}),
    Bar(
        "identity",
        "identity, accuracy",
        "identity",
        None,
        0.2,
        {
            "chance": "chance",
            "true motion": "identity_true_motion",
            "12x12 pixels": "identity_pixels",
        },
    ),
    Bar("motion", "mouth opening, r with the truth", "right", 0.75, None, {"ridge": "ridge"}),
    Bar("motion", "the same above another clip's sound", "gap", 0.35, None, {"other's r": "wrong"}),
    Bar("motion", "amplitude / truth", "amplitude", baselines={"ridge": "ridge_amplitude"}),
    Bar("motion", "best lag, frames", "best_lag", -1, 1),
    Bar(
        "speech",
        "mouth opening against loudness, r",
        "score",
        0.2,
        None,
        {"true footage": "true_score", "other's loudness": "swapped"},
    ),
    Bar("speech", "its peak, frames from zero", "peak", -1, 1, {"true footage": "true_peak"}),
    *(
        Bar("direction", f"{name}, r of told and shown", name, baselines={"free": f"{name}_free"})
        for name in ("yaw", "pitch", "blink")
    ),
    Bar("direction", "emotion recognised", "emotion", baselines={"free": "emotion_free"}),
    Bar("drift", "Fréchet distance to real motion, last / first", "frechet_ratio", None, 1.1),
    Bar("drift", "deviation / real, least", "deviation_least", 0.85),
    Bar("drift", "deviation / real, most", "deviation_most", None, 1.15),
    Bar("drift", "velocity / real, least", "velocity_least", 0.85),
    Bar("drift", "velocity / real, most", "velocity_most", None, 1.15),
    Bar("drift", "mouth's r with the script, last / first", "mouth_ratio", 0.95),
    Bar(
        "drift",
        "held emotions recognised",
        "emotion_held",
        0.8,
        None,
        {"announced": "emotion_announced", "on real actors": "emotion_real"},
    ),
    Bar(
        "drift",
        "... of those told while announced",
        "told_held",
        baselines={"while told": "told_announced"},
    ),
)


def number(value: float | int | None) -> str:
    """A number as the table shows it."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def rows(numbers: Numbers, bars: Sequence[Bar] = BARS) -> list[dict[str, Any]]:
    """One row for every bar that was measured."""
    found = []
    for bar in bars:
        section = numbers.get(bar.section, {})
        if bar.name not in section:
            continue
        value = section[bar.name]
        baselines = {
            text: section[base] if isinstance(base, str) else base
            for text, base in bar.baselines.items()
        }
        found.append(
            {
                "section": bar.section,
                "what": bar.what,
                "measured": value,
                "goal": bar.goal,
                "met": bar.met(value),
                "baselines": baselines,
                "n": section["n"],
            }
        )
    return found


def print_table(numbers: Numbers, console: Console | None = None) -> None:
    """Print `rows`: a table in a terminal, Markdown elsewhere."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=200)
    table = Table(box=box.SIMPLE if console.is_terminal else box.MARKDOWN)
    for heading in ("what", "measured", "goal", "met", "baselines"):
        table.add_column(heading)
    last = ""
    for row in rows(numbers):
        if row["section"] != last:
            last = row["section"]
            sizes = ", ".join(f"{count} {name}" for name, count in row["n"].items())
            table.add_row(f"[bold]{SECTIONS[last]} ({sizes})[/bold]")
        baselines = ", ".join(f"{name} {number(value)}" for name, value in row["baselines"].items())
        met = {True: "yes", False: "no", None: ""}[row["met"]]
        table.add_row(row["what"], number(row["measured"]), row["goal"], met, baselines)
    console.print(table)


def write_results(folder: Path, flags: Mapping[str, Any], numbers: Numbers) -> Path:
    """Write `results.json`: the flags, the table and every number; what is not finite is null."""
    path = folder / "results.json"
    write_json(path, {"flags": flags, "table": rows(numbers), "numbers": numbers})
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as a whole or not at all; what is not finite is null."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    text = json.dumps(_finite(content), indent=1, allow_nan=False, ensure_ascii=False)
    unfinished.write_text(f"{text}\n")
    os.replace(unfinished, path)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
