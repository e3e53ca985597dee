import jax
import jax.numpy as jnp
import pytest

from xactor_jax import utilisation


def test_the_time_at_peak_is_that_of_the_operations_of_a_product(monkeypatch):
    monkeypatch.setattr(utilisation, "PEAKS", {jax.devices()[0].device_kind: 1e9})
    product = jax.jit(lambda x, y: x @ y)
    seconds = utilisation.seconds_at_peak(product, jnp.ones((32, 64)), jnp.ones((64, 128)))
    assert seconds == pytest.approx(2 * 32 * 64 * 128 / 1e9 / jax.device_count())


def test_a_device_that_is_not_known_gives_none():
    assert utilisation.seconds_at_peak(jax.jit(jnp.sin), jnp.ones(2)) is None
