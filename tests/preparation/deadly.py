"""Footage that ends or holds the process that opens it; a module that processes can import."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from xactor_jax.preparation.footage import Footage


class DeadlyFootage(Footage):
    """Once its path is asked for outside the process that made it, that one is gone."""

    @property
    def path(self) -> Path:
        if os.environ.get("MAIN_PROCESS") != str(os.getpid()):
            os._exit(1)
        return super().path


class EndlessFootage(Footage):
    """Whoever asks for its path outside the process that made it waits for ever."""

    @property
    def path(self) -> Path:
        if os.environ.get("MAIN_PROCESS") != str(os.getpid()):
            threading.Event().wait()
        return super().path
