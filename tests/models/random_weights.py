"""Networks with random weights everywhere: layers that start at zero take part as well."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def with_random_weights(make, seed=0, deviation=0.4):
    """The module that `make(rngs)` builds, every parameter drawn from a normal distribution."""
    module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    draw = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda p: jnp.asarray(draw.normal(0, deviation, p.shape), p.dtype), params
    )
    rest = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), rest)
    return nnx.merge(graph, params, rest)


def compiled(function, module):
    """`function(module, *arguments)` as a compiled function of the arguments alone."""
    graph, state = nnx.split(module)
    run = jax.jit(lambda state, *arguments: function(nnx.merge(graph, state), *arguments))
    return lambda *arguments: run(state, *arguments)
