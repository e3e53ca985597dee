"""Files staged by an Apache Beam pipeline, on the machines of its runner; see launch/beam.md.

The pipeline passes names only. Footage and what becomes of it lie in folders that all machines see.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from xactor_jax.errors import InputError
from xactor_jax.preparation.footage import Footage, find_footage
from xactor_jax.preparation.staging import Staging
from xactor_jax.preparation.workers import Worker

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import (
        ExtendedProvisionInfo,
        FnApiRunner,
    )
    from apache_beam.runners.portability.portable_runner import JobServiceHandle
    from apache_beam.runners.runner import PipelineState
except ImportError as error:
    raise InputError(f"no Apache Beam ({error}); pip install 'xactor_jax[beam]'") from None


class _Stage(beam.DoFn):
    """Stages the files of its bundles; a file that is broken is an outcome, never an error."""

    def __init__(self, staging: Staging):
        self._staging = staging

    def setup(self) -> None:
        self._worker = Worker(self._staging)
        self._done = beam.metrics.Metrics.counter("prepare", "files")

    def process(self, element: Footage) -> None:
        self._worker.stage(element)
        self._done.inc()

    def teardown(self) -> None:
        self._worker.close()


class BeamPipeline:
    """A pipeline of a runner such as "DirectRunner", with the flags that the runner takes.

    Raises:
      InputError: there is no such runner, or it does not take these flags.
    """

    def __init__(self, runner: str, flags: Sequence[str]):
        local = runner.lower() in ("direct", "directrunner")
        if local:
            flags = ["--default_sdk_harness_log_level=ERROR", *flags]
        options = PipelineOptions([f"--runner={runner}", *flags])
        given = _all_options(options)
        unknown = given.keys() - PipelineOptions([]).get_all_options().keys()
        if local and unknown:
            # Of other runners, some options are known to their job servers only.
            raise InputError(f"--{min(unknown)}: neither prepare nor {runner} has this option")
        try:
            self._pipeline = beam.Pipeline(_LocalRunner(given) if local else runner, options)
        except (ImportError, ValueError) as error:
            raise InputError(f"--runner={runner}: {' '.join(str(error).split())}") from None

    def stage_all(
        self,
        folder: Path,
        recipe: str,
        todo: Sequence[Footage],
        staging: Staging,
        advance: Callable[[int], None],
    ) -> None:
        """Stage the footage of a folder; can be called once.

        Args:
          todo: what of the folder is not done, for counting and checking.
          advance: told how many more files are done.

        Raises:
          InputError: the pipeline stopped early, or its machines do not share the folders.
        """
        # Other machines have other working folders. They list the files once more, because a job
        # that has so many names in it would be larger than runners take.
        there = Staging(staging.folder.absolute(), staging.settings)
        (
            self._pipeline
            | "Folder" >> beam.Create([folder.absolute()])
            | "List" >> beam.FlatMap(find_footage, recipe)
            | "Not done" >> beam.Filter(lambda footage: there.outcome(footage) is None)
            | "Spread" >> beam.Reshuffle()
            | "Stage" >> beam.ParDo(_Stage(there))
        )
        outcomes = [staging.outcome_path(one) for one in todo]
        with _counted(outcomes, advance):
            try:
                state = self._pipeline.run().wait_until_finish()
            except Exception as error:  # the traceback is in what Beam has logged
                lines = [line.strip() for line in str(error).splitlines() if len(line) > 5]
                why = lines[-1] if lines else type(error).__name__
                raise InputError(f"the pipeline failed ({why}); run again to go on") from None
        if state != PipelineState.DONE:
            raise InputError(f"the pipeline ended as {state}; run again to go on")
        os.listdir(staging.folder)  # or a network file system may not look again
        missing = [
            one
            for one, path in zip(todo, outcomes, strict=True)
            if not path.exists() and staging.outcome(one) is None  # else it has changed since
        ]
        if missing:
            raise InputError(
                f"{staging.folder}: {len(missing)} of {len(todo)} files are done, but not here; "
                "all machines of the runner must see this folder"
            )


def _all_options(options: PipelineOptions) -> dict[str, Any]:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return options.get_all_options(drop_default=True, retain_unknown_options=True)
    except SystemExit:
        raise InputError(complaint.getvalue().strip().split("error: ")[-1]) from None


class _LocalRunner(FnApiRunner):
    """Beam's runner in Python. By its name, another is tried first, which is downloaded."""

    def __init__(self, options: dict[str, Any]):
        encoded = JobServiceHandle.encode_pipeline_options(options)
        provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
        super().__init__(provision_info=ExtendedProvisionInfo(provision))

    def run_via_runner_api(self, pipeline_proto, options):
        # It starts workers by a line of the shell, and waits for ever where the path of Python has
        # a space in it.
        plain, quoted = sys.executable.encode(), shlex.quote(sys.executable).encode()
        for environment in pipeline_proto.components.environments.values():
            if environment.payload.startswith(plain + b" "):
                environment.payload = quoted + environment.payload[len(plain) :]
        return super().run_via_runner_api(pipeline_proto, options)


@contextlib.contextmanager
def _counted(outcomes: Sequence[Path], advance: Callable[[int], None]) -> Generator[None]:
    """Tell of files as their outcomes appear, in a terminal; runners tell late or not at all."""
    stop = threading.Event()

    def count() -> None:
        left, pause = list(outcomes), 1.0
        while not stop.wait(pause):
            start = time.monotonic()
            still = [path for path in left if not path.exists()]
            advance(len(left) - len(still))
            left, pause = still, max(1.0, 10 * (time.monotonic() - start))

    thread = threading.Thread(target=count, daemon=True)
    if sys.stderr.isatty():
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.ident:
            thread.join()
