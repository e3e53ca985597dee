"""What the commands share: flags that fail in one line, and errors without a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import jax

from xactor_jax.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are InputErrors instead of a usage text."""

    def __init__(self, description: str):
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def run(command: Callable[[], None]) -> None:
    """Run a command; an InputError becomes one line on stderr and exit code 2."""
    try:
        command()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def keep_compiled() -> None:
    """Keep compiled programs in JAX_COMPILATION_CACHE_DIR, ~/.cache/xactor_jax by default."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xactor_jax"
        jax.config.update("jax_compilation_cache_dir", str(folder))
