"""Turn a folder of talking-head footage into training shards.

    python -m xactor_jax.prepare --input=FOLDER --output=FOLDER

Every stretch of a video in which one person is seen and heard becomes a clip: 25 frames a second,
16 kHz mono, one fixed square around the face. `manifest.parquet` lists the clips, `rejected.csv`
and `rejected.parquet` what cannot be used and why, and `report.html` shows both. Running again goes
on where the last run stopped. `--recipe` reads a published data set as it lies on disk
(docs/datasets.md). `--runner` spreads the work over machines (launch/beam.md).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xactor_jax import recipes
from xactor_jax.command import Parser, run
from xactor_jax.data import shards
from xactor_jax.data.shards import Clip
from xactor_jax.errors import InputError
from xactor_jax.preparation import splits
from xactor_jax.preparation.detectors import open_detector
from xactor_jax.preparation.duplicates import find_copies
from xactor_jax.preparation.folders import mend
from xactor_jax.preparation.footage import Footage, find_footage, no_footage
from xactor_jax.preparation.report import write_report
from xactor_jax.preparation.settings import Settings, changed
from xactor_jax.preparation.staging import Staging, changed_outcome
from xactor_jax.preparation.tables import write_manifest, write_rejected
from xactor_jax.preparation.workers import stage_all
from xactor_jax.progress import progress

Row = dict[str, Any]


def prepare(
    input: Path,
    output: Path,
    settings: Settings | None = None,
    licence: str = "",
    jobs: int = 0,
    recipe: str = "",
    runner: str = "",
    options: Sequence[str] = (),
) -> tuple[int, int]:
    """Prepare all footage under `input` as shards in `output`; returns clips kept and rejected.

    Args:
      jobs: processes that work side by side; 0: this one does, and a file may end it.
      runner: of Apache Beam, such as "DirectRunner", that works instead, with its `options`.

    Raises:
      InputError: there is no footage, none of it can be used, `output` cannot be written, or the
        runner fails.
    """
    beam = None
    if runner:
        from xactor_jax.preparation.beam_pipeline import BeamPipeline  # an extra, slow to import

        beam = BeamPipeline(runner, options)
    footage = find_footage(input, recipe)
    settings = (settings or Settings()).absolute()
    open_detector(settings.faces.detector)  # a missing file is told before any work
    staging = Staging(output / "clips", settings)
    try:
        staging.folder.mkdir(parents=True, exist_ok=True)
        todo = [one for one in footage if not staging.holds(one)]
        with progress("preparing", len(todo), "files") as advance:
            if beam and todo:
                beam.stage_all(input, recipe, todo, staging, advance)
            else:
                for _ in stage_all(todo, staging, jobs):
                    advance(1)
        kept, rejected = _collect(footage, staging, licence)
        if not (kept or rejected):
            raise no_footage(input)
        write_rejected(output, rejected)
        _write(kept, output, staging)
        write_report(
            output / "report.html",
            kept,
            rejected,
            lambda row: staging.thumbnail(row["footage"], row["kind"], row["place"]),
        )
        if not kept:
            report = output / "report.html"
            raise InputError(f"{input}: no clip can be used; {report} and rejected.csv say why")
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{output}: cannot be written ({why})") from None
    return len(kept), len(rejected)


def _collect(footage: list[Footage], staging: Staging, licence: str) -> tuple[list[Row], list[Row]]:
    """Rows of the clips to keep, with their splits, and rows of what is rejected."""
    kept: list[Row] = []
    rejected: list[Row] = []
    for one in footage:
        outcome = staging.outcome(one) or changed_outcome()
        shared = {"source": one.name, "identity": one.identity, "footage": one}
        shared |= {"checksum": outcome["checksum"], "licence": licence or one.licence}
        for kind, rows in (("clips", kept), ("refused", rejected)):
            for place, row in enumerate(outcome[kind]):
                # Pictures are many: the report asks for those that it shows.
                seen = bool(row.pop("thumbnail"))
                rows.append(shared | row | {"kind": kind, "place": place, "seen": seen})
    settings = staging.settings
    if settings.duplicates.enabled:
        prints = [staging.fingerprint(row) for row in kept]
        sounds, pictures = [sound for sound, _ in prints], [picture for _, picture in prints]
        copies = find_copies(sounds, pictures, settings.duplicates)
        for i, of in copies.items():
            rejected.append(kept[i] | {"reason": f"a copy of {kept[of]['clip']}"})
        kept = [row for i, row in enumerate(kept) if i not in copies]
    kept, short = mend(kept, settings.sync, settings.faces.shortest_seconds)
    rejected += short
    units = [(row["footage"].file, row["identity"]) for row in kept]
    names = splits.assign(units, settings.splits)
    for row, name in zip(kept, names, strict=True):
        row["split"] = name
    return kept, sorted(rejected, key=lambda row: (row["source"], row["start_seconds"]))


def _write(kept: list[Row], output: Path, staging: Staging) -> None:
    """Write shards and manifest; without clips, remove those of an earlier run, now untrue."""
    if not kept:
        (output / "manifest.parquet").unlink(missing_ok=True)
        shards.remove_shards(output)
        return

    def split(name: str) -> Iterator[Clip]:
        rows = (row for row in kept if row["split"] == name)
        return (staging.load(row["footage"], row) for row in rows)

    shards.write_shards(output, {name: split(name) for name in splits.NAMES})
    for name in splits.NAMES:
        opened = shards.open_shards(output, name)
        if len(opened):
            shards.decode_frames(opened[len(opened) - 1], [0])
    write_manifest(output / "manifest.parquet", kept)


def _folder(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is no folder; mount it as one")
    return Path(text)


def _flags() -> tuple[argparse.Namespace, list[str]]:
    """The command's own flags, checked, and those that are the runner's."""
    parser = Parser("Turn a folder of talking-head footage into training shards.")
    parser.add_argument("--input", type=_folder, required=True, help="videos, at any depth")
    parser.add_argument("--output", type=_folder, required=True, help="folder for the shards")
    parser.add_argument("--size", type=int, default=256, help="side of the view in pixels")
    parser.add_argument(
        "--test_fraction", type=float, default=0.06, help="share of the clips held out for testing"
    )
    parser.add_argument("--licence", default="", help="of the footage, for the manifest")
    parser.add_argument("--recipe", default="", help=f"of a data set: {', '.join(recipes.NAMES)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes that work side by side")
    parser.add_argument(
        "--runner", default="", help="of Apache Beam, and after it its own flags; launch/beam.md"
    )
    parser.add_argument(
        "--features", default="", help="weights of a renderer: latents and mel features are added"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STEP.FIELD=VALUE",
        help="change a step, such as speaker.enabled=False; docs/preparation.md lists them",
    )
    flags, others = parser.parse_known_args()
    if others and not flags.runner:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if not 32 <= flags.size <= 2048 or flags.size % 2:
        raise InputError(f"--size={flags.size}: give an even number from 32 to 2048")
    if not 0 <= flags.test_fraction < 1:
        raise InputError(f"--test_fraction={flags.test_fraction}: give a share from 0 to below 1")
    if flags.jobs < 1:
        raise InputError(f"--jobs={flags.jobs}: give 1 or more")
    if flags.runner and flags.jobs > 1:
        raise InputError(
            f"--jobs={flags.jobs}: with --runner, ask that for processes (--direct_num_workers)"
        )
    return flags, others


def main() -> None:
    flags, others = _flags()
    settings = Settings(size=flags.size)
    held = dataclasses.replace(settings.splits, test=flags.test_fraction)
    settings = changed(dataclasses.replace(settings, splits=held), flags.set)
    if flags.features:
        # A mistake is told before hours of work; and networks take a while to import.
        from xactor_jax.release import renderer_at

        renderer_at(flags.features)
    kept, rejected = prepare(
        flags.input,
        flags.output,
        settings,
        flags.licence,
        flags.jobs,
        flags.recipe,
        flags.runner,
        others,
    )
    if flags.features:
        from xactor_jax.data.features import add_features

        add_features(flags.output, flags.features)
    print(f"{flags.output}: {kept} clips prepared, {rejected} rejected (report.html shows why)")
    if flags.recipe:
        print(f"{flags.recipe}: {recipes.recipe(flags.recipe).licence}")


if __name__ == "__main__":
    run(main)
