"""Being asked to stop: signals, and the notices of a cloud before it takes a machine away."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from types import FrameType

import jax
from absl import logging
from jax.experimental import multihost_utils

# Google Cloud: cloud.google.com/compute/docs/metadata/getting-live-migration-notice
MAINTENANCE = "computeMetadata/v1/instance/maintenance-event"
SECONDS_A_REQUEST = 300
SECONDS_AFTER_AN_ERROR = 30


class StopRequest:
    """Notices SIGTERM and Ctrl-C so that the loop can save and leave; a second signal kills.

    Where processes have joined, if only one, JAX notices SIGTERM from then on and makes all of them
    stop at the same step; Ctrl-C becomes a SIGTERM.
    """

    def __enter__(self) -> StopRequest:
        self._signal = False
        self._previous = {}
        if jax.distributed.is_initialized():
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._pass_on)
        else:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._signal = True
        self.__exit__()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.__exit__()
        signal.raise_signal(signal.SIGTERM)

    def at(self, step: int) -> bool:
        """Whether to stop before step number `step`."""
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(step)
        return self._signal


def watch_maintenance() -> threading.Thread:
    """Send this process SIGTERM once Google Cloud gives notice that its machine will be stopped.

    Asks the metadata server (GCE_METADATA_HOST, metadata.google.internal by default) in a thread of
    its own, with requests that the server answers when something changes. Where there is no such
    server the thread ends with a warning; one that fails for a while is asked again. Machines that
    migrate alive are left running. A notice that stands already is none: it may stand for an hour,
    and a training that stopped for it would, begun again, stop again at once.
    """
    thread = threading.Thread(target=_watch, name="maintenance events", daemon=True)
    thread.start()
    return thread


def _watch() -> None:
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    before, event, tag, is_first = "", "", "0", True
    while not event.startswith("TERMINATE") or before in ("", event):
        query = f"wait_for_change=true&timeout_sec={SECONDS_A_REQUEST}&last_etag={tag}"
        request = urllib.request.Request(
            f"http://{host}/{MAINTENANCE}?{query}", headers={"Metadata-Flavor": "Google"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2 * SECONDS_A_REQUEST) as answer:
                before, event = event, answer.read().decode().strip()
                tag = answer.headers.get("ETag", "0")
        except (OSError, http.client.HTTPException) as error:
            # An answer such as 503 is one of HTTP; what else is of this kind found nobody.
            unreachable = isinstance(error, urllib.error.URLError)
            unreachable = unreachable and not isinstance(error, urllib.error.HTTPError)
            if is_first and unreachable:
                logging.warning("no notices of maintenance: http://%s: %s", host, error)
                return
            logging.warning("http://%s: %s; asking again", host, error)
            time.sleep(SECONDS_AFTER_AN_ERROR)
        is_first = False
    logging.warning("maintenance of this machine is announced (%s): saving and stopping", event)
    os.kill(os.getpid(), signal.SIGTERM)
