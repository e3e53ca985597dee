"""Linear and convolution layers with the initial weights that the published networks start from."""

from __future__ import annotations

import functools

from flax import nnx

# Torch's default scale. Uniform draws also compile far faster than truncated normals, of which a
# traced initialisation holds hundreds.
initial_kernel = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

Linear = functools.partial(nnx.Linear, kernel_init=initial_kernel)
Conv = functools.partial(nnx.Conv, kernel_init=initial_kernel)
