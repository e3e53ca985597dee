"""What every test needs: JAX on the CPU, and flags that count as parsed (Grain's workers ask)."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()


def pytest_runtest_setup(item):
    """Skip tests that need libtpu where there is none."""
    if item.get_closest_marker("libtpu"):
        pytest.importorskip("libtpu")
