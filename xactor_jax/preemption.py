"""Being asked to stop: signals, and the notices of a cloud before it takes a machine away."""

from __future__ import annotations

import os
import signal
import threading
import urllib.error
import urllib.request
from types import FrameType

import jax
from absl import logging
from jax.experimental import multihost_utils

# Google Cloud: cloud.google.com/compute/docs/metadata/getting-live-migration-notice
MAINTENANCE = "computeMetadata/v1/instance/maintenance-event"
SECONDS_A_REQUEST = 300


class StopRequest:
    """Notices SIGTERM and Ctrl-C so that the loop can save and leave; a second signal kills.

    With several processes it asks JAX, which makes all of them stop at the same step.
    """

    def __enter__(self) -> StopRequest:
        self._signal = False
        self._previous = {}
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._signal = True
        self.__exit__()

    def at(self, step: int) -> bool:
        """Whether to stop before step number `step`."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._signal


def watch_maintenance() -> threading.Thread:
    """Send this process SIGTERM once Google Cloud gives notice that its machine will be stopped.

    Asks the metadata server (GCE_METADATA_HOST, metadata.google.internal by default) in a thread of
    its own, with requests that the server answers when something changes. Where there is no such
    server the thread ends with a warning. Machines that migrate alive are left running.
    """
    thread = threading.Thread(target=_watch, name="maintenance events", daemon=True)
    thread.start()
    return thread


def _watch() -> None:
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    event, tag = "NONE", "0"
    while not event.startswith("TERMINATE"):
        query = f"wait_for_change=true&timeout_sec={SECONDS_A_REQUEST}&last_etag={tag}"
        request = urllib.request.Request(
            f"http://{host}/{MAINTENANCE}?{query}", headers={"Metadata-Flavor": "Google"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2 * SECONDS_A_REQUEST) as answer:
                event, tag = answer.read().decode().strip(), answer.headers.get("ETag", "0")
        except OSError as error:
            logging.warning("no notices of maintenance: http://%s: %s", host, error)
            return
    logging.warning("maintenance of this machine is announced (%s): saving and stopping", event)
    os.kill(os.getpid(), signal.SIGTERM)
