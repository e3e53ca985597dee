"""What all commands do first."""

import errno
import platform
import resource
import subprocess
import sys

import pytest

from xactor_jax.command import run

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


def test_another_error_of_the_system_keeps_its_traceback():
    def write():
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        run(write)
