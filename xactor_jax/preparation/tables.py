"""`manifest.parquet`, one row a clip, and what was rejected as parquet and CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_CHECKS = (
    *("face_pixels", "blur", "dark", "contrast", "static", "occluded", "turned", "yaw", "overlay"),
    *("second_face", "loudness", "silence", "music", "sync_frames", "sync_peak", "sync_margin"),
)
_CHECKED = pa.struct([(name, pa.float64()) for name in _CHECKS])
MANIFEST = pa.schema(
    [
        ("clip", pa.string()),
        ("source", pa.string()),  # the file's path inside the input folder
        ("identity", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("offset_frames", pa.int32()),  # mended; positive: sound was late; null: not measured
        ("checks", _CHECKED),
        ("split", pa.string()),
        ("licence", pa.string()),
        ("checksum", pa.string()),  # SHA-256 of the file
    ]
)
REJECTED = pa.schema(
    [
        ("source", pa.string()),
        ("reason", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("checks", _CHECKED),
    ]
)


def write_manifest(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the clips' rows; fields that the schema does not have are left out."""
    table = pa.Table.from_pylist(list(rows), schema=MANIFEST)
    _replace(path, lambda partial: pq.write_table(table, partial))


def write_rejected(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `rejected.parquet` and `rejected.csv`."""
    rows = [row | {name: _text(row[name]) for name in ("source", "reason")} for row in rows]
    table = pa.Table.from_pylist(list(rows), schema=REJECTED)
    _replace(folder / "rejected.parquet", lambda partial: pq.write_table(table, partial))

    def write_csv(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            names = ["source", "reason", "start_seconds", "end_seconds"]
            writer.writerow(names)
            writer.writerows([row[name] for name in names] for row in rows)

    _replace(folder / "rejected.csv", write_csv)


def _text(name: str) -> str:
    """A name whose bytes may be no text, with what cannot be read spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
