"""What the commands share: flags that fail in one line, and errors without a traceback."""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import jax

from xactor_jax.errors import InputError

# malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX.
_KEEP = {-1: 2**31 - 1, -3: 2**29, -8: 1}


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
    """Run a command; an InputError or a full disk becomes one line on stderr and exit code 2."""
    try:
        command()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}; make room and run again", file=sys.stderr)
        sys.exit(2)


def start_up() -> None:
    """What every command that computes does first."""
    keep_compiled()
    keep_memory()


def join_others() -> None:
    """Find the other processes of a training. Raises InputError where no cluster names them."""
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise InputError(
            f"--distributed: no cluster is found ({error}); leave it out on a single machine"
        ) from error


def keep_memory() -> None:
    """Keep what the C library has freed, for the next buffers, instead of returning it.

    Every step of a network on a CPU asks for gigabytes anew, and to have the system map and clear
    them took up to half the time. One arena, because those of threads give theirs back whatever
    they are told. Buffers from half a gigabyte on are returned: kept, they leave holes that the
    next do not fit. Elsewhere than in glibc, nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in _KEEP.items():
        mallopt(parameter, value)


def keep_compiled() -> None:
    """Keep compiled programs in JAX_COMPILATION_CACHE_DIR, ~/.cache/xactor_jax by default."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xactor_jax"
        jax.config.update("jax_compilation_cache_dir", str(folder))
