"""Files staged in processes of their own: one that ends its process takes nothing else along."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import cv2

from xactor_jax.errors import NoAccess
from xactor_jax.preparation.clips import Prepared, Refused, prepare_file
from xactor_jax.preparation.detectors import open_detector
from xactor_jax.preparation.footage import Footage
from xactor_jax.preparation.settings import Settings
from xactor_jax.preparation.staging import Staging

# A process can also be ended from outside, such as for memory that another one took.
_TRIES = 2
_DIED = "the process that read it died; it may need more memory than there is: run again with more"
_TOO_LONG = "not done in {hours:g} h; run again with --set=work.hours={more:g}"


def stage(footage: Footage, staging: Staging) -> None:
    """Prepare one file and keep what becomes of it, unless that is done; safe to interrupt.

    Of a file that turns out to be no film, nothing is kept but that.

    Raises InputError where the detector cannot be opened, which no file is to blame for.
    """
    if staging.outcome(footage) is None:
        open_detector(staging.settings.faces.detector)
        staging.keep(footage, _results(footage, staging.settings))


def _results(footage: Footage, settings: Settings) -> Iterator[Prepared | Refused]:
    if footage.closed:
        raise NoAccess(f"{footage.path}: {footage.closed}")
    if footage.is_film():
        yield from prepare_file(
            footage.path, footage.name, footage.identity, settings, footage.between
        )


def stage_all(todo: list[Footage], staging: Staging, jobs: int) -> Iterator[Footage]:
    """Stage every file; yields each as it is done.

    Args:
      jobs: processes that work side by side; 0: this one does, and a file may end it.
    """
    if jobs:
        yield from _side_by_side(todo, staging, min(jobs, len(todo)))
        return
    for footage in todo:
        stage(footage, staging)
        yield footage


def _side_by_side(todo: list[Footage], staging: Staging, jobs: int) -> Iterator[Footage]:
    workers = [Worker(staging) for _ in range(jobs)]
    free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def work(footage: Footage) -> None:
        worker = free.get()
        try:
            worker.stage(footage)
        finally:
            free.put(worker)

    threads = concurrent.futures.ThreadPoolExecutor(max(jobs, 1))
    try:
        futures = {threads.submit(work, footage): footage for footage in todo}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            yield futures.pop(future)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.close()
        threads.shutdown()


class Worker:
    """A process that stages one file after the other; one that dies is replaced."""

    def __init__(self, staging: Staging):
        self._staging = staging
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._closed = False
        self._lock = threading.Lock()  # so that no process is started once it is closed

    def stage(self, footage: Footage) -> None:
        """As the function `stage`; a file at which processes die, or stay, is kept as refused.

        Raises:
          RuntimeError: it is closed, or no process can be started.
        """
        hours, refused = self._staging.settings.work.hours, Refused(_DIED, again=True)
        for _ in range(_TRIES):
            pipe = self._begun()
            try:
                pipe.send(footage)
                if not pipe.poll(3600 * hours):
                    self._kill()
                    self._forget()
                    refused = Refused(_TOO_LONG.format(hours=hours, more=2 * hours), again=True)
                    break
                error = pipe.recv()
            except (EOFError, OSError):  # nobody is at the other end
                self._forget()
                continue
            if error is not None:
                raise error
            return
        self._check_open()
        self._staging.keep(footage, [refused])

    def close(self) -> None:
        """End the process, also in the middle of a file, which is then not done."""
        with self._lock:
            self._closed = True
        self._kill()

    def _begun(self) -> Connection:
        """The way to the process, which is started where there is none."""
        with self._lock:
            self._check_open()
            if self._pipe is not None:
                return self._pipe
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            arguments = (theirs, self._staging)
            self._process = context.Process(target=_serve, args=arguments, daemon=True)
            self._process.start()
            theirs.close()
            pipe = self._pipe
        try:
            pipe.recv()
        except EOFError:
            self._forget()
            self._check_open()
            raise RuntimeError("a process that prepares files ended before its first") from None
        return pipe

    def _check_open(self) -> None:
        # Python ends the processes itself once its main thread is through.
        if self._closed or not threading.main_thread().is_alive():
            raise RuntimeError("files are no longer prepared here")

    def _kill(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _forget(self) -> None:
        with self._lock:
            process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process is not None:
            process.join()
        if pipe is not None:
            pipe.close()


def _serve(pipe: Connection, staging: Staging) -> None:
    """What the process does: files come in, and go out with None or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    pipe.send(None)
    while True:
        try:
            footage = pipe.recv()
        except EOFError:
            return
        try:
            stage(footage, staging)
        except Exception as error:
            error.add_note(traceback.format_exc())
            pipe.send(error)
        else:
            pipe.send(None)


def _end_with_parent() -> None:
    """So that nothing goes on in secret, beside the next run, when the parent is killed."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
