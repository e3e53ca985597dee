"""What the commands share: flags that fail in one line, and errors without a traceback."""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import jax

from xactor_jax.errors import InputError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
}

# Processes that all leave for one reason do so within seconds of each other.
SECONDS_TO_LEAVE = 60

# malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX.
_KEEP = {-1: 2**31 - 1, -3: 2**29, -8: 1}


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names defaults, but not those that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default is None or action.default in ("", False)
        return action.help if says_nothing else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are InputErrors instead of a usage text."""

    def __init__(self, description: str):
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def parse_known_args(self, args=None, namespace=None):
        """As argparse, but an empty value, such as a shell's unset variable leaves, is refused."""
        for argument in sys.argv[1:] if args is None else args:
            if argument.startswith("--") and argument.endswith("="):
                raise InputError(f"{argument} is empty; give a value")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def run(command: Callable[[], None]) -> None:
    """Run a command; what its user can mend becomes one line on stderr and exit code 2.

    That is an InputError, a full disk, and a path that may not be used; Ctrl-C ends with 130.
    """
    try:
        command()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if said := _to_mend(error):
            print(f"error: {said}", file=sys.stderr)
            _leave(2)
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        _leave(1)


def _to_mend(error: Exception) -> str | None:
    """What has gone wrong and what to do, where the user can do something."""
    if isinstance(error, InputError):
        return str(error)
    if not isinstance(error, OSError):
        return None
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in _NO_ROOM:
        return f"{where}{error.strerror}; make room and run again"
    if error.errno in _NO_ACCESS and where:
        return f"{where}{error.strerror}; name another path, or change its permissions"
    return None


def _leave(code: int) -> NoReturn:
    """Exit with a code, also where this process alone has failed.

    JAX then waits for the others, who wait for this one, and in the end aborts all of them.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        timer = threading.Timer(SECONDS_TO_LEAVE, os._exit, [code])
        timer.daemon = True  # or it would itself be waited for
        timer.start()
    sys.exit(code)


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
