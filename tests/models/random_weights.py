"""Networks with random weights everywhere: layers that start at zero take part as well."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xactor_jax.nn.layers import abstract, initial_keys


def with_random_weights(make, seed=0, deviation=0.4):
    """The module that `make(rngs)` builds, every parameter drawn from a normal distribution."""
    module = abstract(make)
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    draw = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda p: jnp.asarray(draw.normal(0, deviation, p.shape), p.dtype), params
    )
    rest = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), rest)
    return nnx.merge(graph, params, rest)


def newly_made(make):
    """The module that `make(rngs)` builds, with its own initial weights."""
    graph, _ = nnx.split(abstract(make))
    state = quick_jit(lambda key: nnx.state(make(initial_keys(key))))(jax.random.key(0))
    return nnx.merge(graph, state)


def compiled(function, module):
    """`function(module, *arguments)` as a compiled function of the arguments alone."""
    graph, state = nnx.split(module)
    run = quick_jit(lambda state, *arguments: function(nnx.merge(graph, state), *arguments))
    return lambda *arguments: run(state, *arguments)


def quick_jit(function):
    """`jax.jit` that spends its time on neither speed nor size: these networks are tiny."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
