"""Footage that ends the process that opens it; in a module that other processes can import."""

from __future__ import annotations

import os
from pathlib import Path

from xactor_jax.preparation.footage import Footage


class DeadlyFootage(Footage):
    """Once its path is asked for outside the process that made it, that one is gone."""

    @property
    def path(self) -> Path:
        if os.environ.get("MAIN_PROCESS") != str(os.getpid()):
            os._exit(1)
        return super().path
