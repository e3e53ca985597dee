"""What the tables say of devices."""

from types import SimpleNamespace

import pytest

from xactor_jax.planning.chips import peak_arithmetic


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("NVIDIA GB200", 2500),
        ("NVIDIA B200", 2250),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("Tesla V100-SXM2-16GB", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", None),
        ("NVIDIA L4", 121),
        ("cpu", None),
    ],
)
def test_the_peak_of_a_device_is_that_of_its_maker(kind, teraflops):
    found = peak_arithmetic(SimpleNamespace(device_kind=kind))
    assert found == (None if teraflops is None else teraflops * 1e12)
