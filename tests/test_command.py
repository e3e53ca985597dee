"""What all commands do first."""

import errno
import os
import platform
import resource
import subprocess
import sys

import pytest

from xactor_jax.command import Parser, run
from xactor_jax.errors import InputError

_SCRIPT = """
import resource
from xactor_jax.command import keep_memory

keep_memory()
import numpy as np

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

np.ones(2**24)
before = faults()
np.ones(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_serves_the_next_buffer_without_the_system():
    found = subprocess.run(
        [sys.executable, "-c", _SCRIPT], stdout=subprocess.PIPE, text=True, check=True
    )
    # All of them where the memory of the first array went back.
    assert int(found.stdout) < 0.01 * 8 * 2**24 / resource.getpagesize()


def test_a_full_disk_is_one_line(capsys):
    def write():
        raise OSError(errno.ENOSPC, "No space left on device", "runs/metrics.jsonl")

    with pytest.raises(SystemExit) as stopped:
        run(write)
    assert stopped.value.code == 2
    expected = "error: runs/metrics.jsonl: No space left on device; make room and run again\n"
    assert capsys.readouterr() == ("", expected)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.ENOTDIR])
def test_a_path_that_may_not_be_used_is_one_line(capsys, number):
    def write():
        raise OSError(number, os.strerror(number), "portrait.png")

    with pytest.raises(SystemExit) as stopped:
        run(write)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: portrait.png: ") and err.count("\n") == 1


def test_stopping_it_prints_no_traceback(capsys):
    def work():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run(work)
    assert stopped.value.code == 130
    assert capsys.readouterr() == ("", "stopped\n")


def test_empty_flags_are_refused_and_help_names_only_real_defaults(capsys):
    parser = Parser("Test.")
    parser.add_argument("--image", help="picture")
    parser.add_argument("--seed", default=3, help="number")
    with pytest.raises(InputError, match="--image= is empty; give a value"):
        parser.parse_args(["--image="])
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    shown = capsys.readouterr().out
    assert "(default: 3)" in shown and "None" not in shown


def test_another_error_of_the_system_keeps_its_traceback():
    def write():
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        run(write)
