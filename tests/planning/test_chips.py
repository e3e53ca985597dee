"""What the tables say of devices."""

from types import SimpleNamespace

import pytest

from xactor_jax.planning.chips import peak_arithmetic


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("cpu", None),
    ],
)
def test_the_peak_of_a_device_is_that_of_its_maker(kind, teraflops):
    found = peak_arithmetic(SimpleNamespace(device_kind=kind))
    assert found == (None if teraflops is None else teraflops * 1e12)
