import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from xactor_jax.errors import InputError
from xactor_jax.optim import (
    ema_decay,
    learning_rate_schedule,
    make_optimizer,
    update_ema,
    weight_decay_mask,
    without_gradient,
)

OPTIMIZER = {
    "learning_rate": 0.1,
    "warmup_steps": 0,
    "schedule": "constant",
    "weight_decay": 0.5,
    "b1": 0.9,
    "b2": 0.99,
    "clip_norm": 1.0,
    "frozen": (),
    "slowed": (),
}


def test_frozen_parts_stay_and_do_not_count_when_clipping():
    config = ConfigDict({**OPTIMIZER, "frozen": ("a/encoder",)})
    params = {
        "a": {"encoder": {"kernel": jnp.ones((1, 2))}, "encoder_2": {"kernel": jnp.ones((1, 2))}}
    }

    def loss(params):
        kernels = without_gradient(params, config.frozen)["a"]
        large = 1e6 * jnp.sum(kernels["encoder"]["kernel"])
        return large + jnp.sum(jnp.array([0.3, -0.4]) * kernels["encoder_2"]["kernel"])

    gradients = jax.grad(loss)(params)
    optimizer, _ = make_optimizer(config, 10)
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["a"]["encoder"]["kernel"], 0)
    # Of norm 0.5 by itself, the other gradient is not clipped; decay is 0.5 of the weights.
    np.testing.assert_allclose(updates["a"]["encoder_2"]["kernel"], [[-0.15, 0.05]], rtol=1e-5)
    [momentum] = jax.tree.leaves(optax.tree.get(state, "mu"))  # and none of what is frozen
    np.testing.assert_allclose(momentum, [[0.03, -0.04]])
    with pytest.raises(InputError, match="no parameters in 'encoder'"):
        make_optimizer(ConfigDict({**OPTIMIZER, "frozen": ("encoder",)}), 10)[0].init(params)


@pytest.mark.parametrize("step", [0, 1, 5, 10, 11, 55, 99, 100, 130])
def test_schedules_follow_their_closed_form(step):
    warm = min(step / 10, 1.0)
    done = min(max(step - 10, 0) / 90, 1.0)
    cosine = learning_rate_schedule("cosine", 2e-3, 10, 100)
    constant = learning_rate_schedule("constant", 2e-3, 10, 100)
    # float32 cosine near its zero at the end: absolute tolerance of one part in 1e6 of the peak.
    assert float(cosine(step)) == pytest.approx(
        2e-3 * warm * 0.5 * (1 + math.cos(math.pi * done)), rel=1e-5, abs=2e-9
    )
    assert float(constant(step)) == pytest.approx(2e-3 * warm, rel=1e-6)


@pytest.mark.parametrize(("name", "warmup"), [("linear", 0), ("cosine", 100), ("cosine", -1)])
def test_an_impossible_schedule_is_an_input_error(name, warmup):
    with pytest.raises(InputError, match=r"config\.optimizer"):
        learning_rate_schedule(name, 1e-3, warmup, 100)


def test_only_matrices_and_kernels_decay():
    params = {
        "linear": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "norm": {"scale": jnp.ones(3)},
        "conv": {"kernel": jnp.ones((3, 3, 2, 2))},
        "temperature": jnp.ones(()),
    }
    assert weight_decay_mask(params) == {
        "linear": {"kernel": True, "bias": False},
        "norm": {"scale": False},
        "conv": {"kernel": True},
        "temperature": False,
    }
    optimizer, _ = make_optimizer(ConfigDict(OPTIMIZER), 10)
    zero = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
    updates, _ = optimizer.update(zero, optimizer.init(params["linear"]), params["linear"])
    # Without a gradient only decay moves a weight: -learning_rate * weight_decay * weight.
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_the_first_update_is_the_clipped_sign_of_adam():
    config = ConfigDict({**OPTIMIZER, "weight_decay": 0.0})
    optimizer, _ = make_optimizer(config, 10)
    params = {"kernel": jnp.ones((1, 2))}
    gradients = {"kernel": jnp.array([[30.0, -40.0]])}
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    # Adam's first step is the learning rate times the sign, up to eps = 1e-8.
    np.testing.assert_allclose(updates["kernel"], [[-0.1, 0.1]], rtol=1e-5)
    # Its first moment is (1 - b1) times the gradient clipped to norm 1.
    np.testing.assert_allclose(state[1][0].mu["kernel"], [[0.06, -0.08]], rtol=1e-5)


def test_the_average_forgets_the_start_and_then_keeps_its_decay():
    expected = [min(0.99, (1 + n) / (10 + n)) for n in (0, 5, 5000)]
    actual = [float(ema_decay(0.99, jnp.int32(n))) for n in (0, 5, 5000)]
    assert actual == pytest.approx(expected, rel=1e-6)

    ema, weights = {"a": jnp.float32(1.0)}, [4.0, -2.0, 3.0]
    value = 1.0
    for n, weight in enumerate(weights):
        ema = update_ema(ema, {"a": jnp.float32(weight)}, 0.99, jnp.int32(n))
        decay = (1 + n) / (10 + n)
        value = decay * value + (1 - decay) * weight
    assert float(ema["a"]) == pytest.approx(value, rel=1e-6)


def test_slowed_parts_learn_at_their_own_rate():
    config = ConfigDict({**OPTIMIZER, "slowed": ("a/slow",), "slowed_to": 0.25})
    params = {"a": {"slow": {"kernel": jnp.ones((2, 3))}, "slower": {"kernel": jnp.ones((2, 3))}}}
    optimizer, _ = make_optimizer(config, 10)
    gradients = jax.tree.map(lambda p: 1e-3 * jnp.ones_like(p), params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # The first step of AdamW: the learning rate times the gradient's sign and the decay of 0.5.
    np.testing.assert_allclose(updates["a"]["slower"]["kernel"], -0.1 * 1.5, rtol=1e-4)
    np.testing.assert_allclose(updates["a"]["slow"]["kernel"], -0.25 * 0.1 * 1.5, rtol=1e-4)


def test_a_slowed_part_without_parameters_is_an_input_error():
    config = ConfigDict({**OPTIMIZER, "slowed": ("c",), "slowed_to": 0.25})
    with pytest.raises(InputError, match=r"optimizer\.slowed: no parameters in 'c'"):
        make_optimizer(config, 10)[0].init({"a": {"kernel": jnp.ones((2, 2))}})
