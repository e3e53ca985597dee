"""`report.html`: what a person looks at before trusting the clips; one file that needs no other."""

from __future__ import annotations

import collections
import html
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Row = dict[str, Any]

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_CLIPS = 60  # on the contact sheets
_FRAMES = 12  # of each reason for rejecting
_LISTED = 200
_PLOTTED = (
    ("seconds", "length, s"),
    ("offset_frames", "sound late by, frames (mended)"),
    ("face_pixels", "side of the face, pixels"),
    ("blur", "sharpness: variance of the Laplacian"),
    ("dark", "level of the face"),
    ("contrast", "contrast of the face"),
    ("static", "change from frame to frame"),
    ("occluded", "share of frames unlike the usual face"),
    ("turned", "share of frames without a frontal face"),
    ("yaw", "head turned to a side, degrees"),
    ("overlay", "lasting strokes off the eyes"),
    ("second_face", "second face against the first"),
    ("loudness", "loudness before, LUFS"),
    ("silence", "share of silent frames"),
    ("music", "share of held tones"),
    ("sync_peak", "agreement of mouth and sound"),
    ("sync_margin", "its peak above the rest"),
)
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1160px; color: #222;
  padding: 0 1em }
h1 { font-size: 1.6em } h2 { margin-top: 2em; font-size: 1.25em } h3 { font-size: 1em }
table { border-collapse: collapse } td, th { padding: .2em .9em .2em 0; text-align: left;
  vertical-align: top } td.number { text-align: right; font-variant-numeric: tabular-nums }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 12px }
figure { margin: 0 } figure img { width: 100%; display: block; border-radius: 3px }
figcaption { font-size: 12px; color: #555; overflow-wrap: anywhere }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 8px }
.plots svg { width: 100%; height: auto }
"""


def write_report(
    path: Path,
    kept: Sequence[Row],
    rejected: Sequence[Row],
    thumbnail: Callable[[Row], str],
) -> None:
    """Write the report of clips that are kept and stretches that are not, as rows of the tables.

    `thumbnail` gives the JPEG, in base64, of a row that says it has been `seen`.
    """
    rows = [_flat(row) for row in kept]
    seconds = sum(row["seconds"] for row in rows)
    parts = [
        f"<h1>Footage: {len(rows)} clips, {_duration(seconds)}</h1>",
        _summary(rows, rejected, seconds),
        "<h2>Rejected</h2>",
        _reasons(rejected, thumbnail),
        "<h2>Measures of the clips that are kept</h2>",
        f'<div class="plots">{"".join(_plots(rows))}</div>',
        "<h2>Clips</h2>",
        _sheet(_evenly(rows, _CLIPS), _clip_caption, thumbnail),
        "<h2>Everything that is rejected</h2>",
        _listing(rejected),
    ]
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Footage</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def stored_bytes_per_hour(rows: Iterable[Row]) -> float:
    """Bytes of pictures, sound and boxes of an hour of clips; 0 where there is none."""
    rows = list(rows)
    seconds = sum(row["end_seconds"] - row["start_seconds"] for row in rows)
    return 3600 * sum(row["bytes"] for row in rows) / seconds if seconds else 0.0


def _flat(row: Row) -> Row:
    return row["checks"] | row | {"seconds": row["end_seconds"] - row["start_seconds"]}


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _summary(rows: Sequence[Row], rejected: Sequence[Row], seconds: float) -> str:
    splits: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        splits[row["split"]].append(row)
    lines = [
        (
            name,
            f"{len(part)} clips, {_duration(sum(row['seconds'] for row in part))}, "
            f"{len({row['identity'] for row in part})} speakers",
        )
        for name, part in splits.items()
    ]
    offsets = [row["offset_frames"] for row in rows if row["offset_frames"] is not None]
    mended = sum(offset != 0 for offset in offsets)
    lines += [
        ("files", str(len({row["source"] for row in [*rows, *rejected]}))),
        ("speakers", str(len({row["identity"] for row in rows}))),
        ("rejected", f"{len(rejected)} stretches of {len({r['source'] for r in rejected})} files"),
        (
            "sound",
            f"offset measured in {len(offsets)} of {len(rows)} clips, mended in {mended}",
        ),
        ("stored", f"{stored_bytes_per_hour(rows) / 1e9:.2f} GB an hour"),
    ]
    cells = "".join(
        f"<tr><th>{_text(name)}</th><td>{_text(what)}</td></tr>" for name, what in lines
    )
    return f"<table>{cells}</table>"


def kind_of(reason: str) -> str:
    """A reason without its numbers and names, so that like reasons are counted together."""
    reason = re.sub(r"\(.*?\)", "", reason).split(":")[0].split(";")[0]
    reason = re.sub(r"^a copy of .*", "a copy", reason)
    return re.sub(r"-?\d+(\.\d+)?%?", "…", reason).strip()


def _reasons(rejected: Sequence[Row], thumbnail: Callable[[Row], str]) -> str:
    kinds: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rejected:
        kinds[kind_of(row["reason"])].append(row)
    if not kinds:
        return "<p>Nothing.</p>"
    parts = []
    for kind, rows in sorted(kinds.items(), key=lambda item: -len(item[1])):
        seen = [row for row in rows if row["seen"]]
        parts.append(f"<h3>{len(rows)} × {_text(kind)}</h3>")
        parts.append(_sheet(_evenly(seen, _FRAMES), _reason_caption, thumbnail))
    return "".join(parts)


def _sheet(
    rows: Sequence[Row], caption: Callable[[Row], str], thumbnail: Callable[[Row], str]
) -> str:
    figures = "".join(
        f'<figure><img loading="lazy" alt="" src="data:image/jpeg;base64,{thumbnail(row)}">'
        f"<figcaption>{_text(caption(row))}</figcaption></figure>"
        for row in rows
    )
    return f'<div class="sheet">{figures}</div>'


def _clip_caption(row: Row) -> str:
    late = row["offset_frames"]
    sound = "" if late is None else f", sound late by {late}" if late else ", in step"
    return f"{row['clip']}, {row['seconds']:.1f} s, {row['split']}{sound}"


def _reason_caption(row: Row) -> str:
    return f"{row['source']} {row['start_seconds']:.1f}–{row['end_seconds']:.1f} s: {row['reason']}"


def _listing(rejected: Sequence[Row]) -> str:
    cells = "".join(
        f"<tr><td>{_text(row['source'])}</td>"
        f'<td class="number">{row["start_seconds"]:.2f}</td>'
        f'<td class="number">{row["end_seconds"]:.2f}</td><td>{_text(row["reason"])}</td></tr>'
        for row in rejected[:_LISTED]
    )
    rest = len(rejected) - _LISTED
    more = f"<p>and {rest} more in rejected.csv</p>" if rest > 0 else ""
    head = "<tr><th>file</th><th>from, s</th><th>to, s</th><th>why</th></tr>"
    return f"<table>{head}{cells}</table>{more}"


def _plots(rows: Sequence[Row]) -> Iterable[str]:
    for name, label in _PLOTTED:
        values = [row[name] for row in rows if row.get(name) is not None]
        values = [value for value in values if math.isfinite(value)]
        if values and min(values) == max(values):
            yield f"<p>{label}: always {values[0]:g}</p>"
        elif values:
            yield _histogram(np.array(values, float), label)


def _histogram(values: np.ndarray, label: str) -> str:
    figure = Figure(figsize=(3.4, 2.1), layout="constrained")
    axes = figure.subplots()
    whole = np.array_equal(values, np.round(values)) and np.ptp(values) < 60
    edges = np.arange(values.min() - 0.5, values.max() + 1) if whole else None
    bins = 30 if edges is None else edges.tolist()
    axes.hist(values, bins=bins, color="#4878a8")
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata=_NO_METADATA)
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _evenly(rows: Sequence[Row], count: int) -> list[Row]:
    if len(rows) <= count:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]


def _text(text: str) -> str:
    return html.escape(text)
