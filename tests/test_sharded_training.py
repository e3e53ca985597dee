"""Every task takes the same twenty steps on one device and on eight, whatever the mesh.

Run as a program this file is the process that has eight devices.
"""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from small_models import quick_compilation as quick_compilation
from small_models import random_examples, random_weights, small_objective

from xactor_jax import sharding
from xactor_jax.optim import make_optimizer
from xactor_jax.sharding import batch_sharding, make_mesh, place, tensor_shardings
from xactor_jax.train import jit_step, make_step, new_state, random_keys

STEPS = 20
# A learning rate that moves the loss, but at which Adam does not blow up the last bits.
FIELDS = {"batch_size": 8, "optimizer.learning_rate": 1e-4}
MESHES = {
    "autoencoder": [(1, 8, 1, 1), (2, 2, 1, 2)],
    "autoencoder_dit": [(1, 4, 1, 2)],
    "motion": [(1, 8, 1, 1), (1, 2, 4, 1), (2, 1, 2, 2)],
    "video": [(1, 8, 1, 1), (1, 2, 4, 1)],
    "video_dit": [(1, 2, 2, 2)],
}
WIDER = {"motion": {"motion.heads": 2, "motion.scan": True, "motion.rematerialise": True}}


def run(name, mesh):
    """Losses of all steps, and whether any parameter was split."""
    objective, config = small_objective(name, **FIELDS, **WIDER.get(name, {}))
    optimizer, schedule = make_optimizer(config.optimizer, STEPS)
    step_key = random_keys(0, mesh)[1]
    batches = [random_examples(objective, config.batch_size, seed) for seed in range(4)]
    with jax.set_mesh(mesh):
        params = random_weights(objective, 1)
        frozen = place(_frozen(objective), mesh)
        shapes = jax.eval_shape(lambda key: new_state(objective, optimizer, key), step_key)
        shardings = tensor_shardings(shapes, mesh)
        make = jax.jit(
            lambda key, given: new_state(objective, optimizer, key, given), out_shardings=shardings
        )
        state = make(step_key, params)
        step = jit_step(make_step(objective, optimizer, schedule, config), state, mesh)
        losses = []
        for number in range(STEPS):
            batch = jax.device_put(batches[number % len(batches)], batch_sharding(mesh))
            state, metrics = step(state, frozen, batch, step_key)
            losses.append(float(metrics["loss"]))
        split = [not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params)]
    return losses, any(split)


def _frozen(objective):
    """Arrays of the frozen shapes: weights, or statistics that divide nothing by zero."""
    draw = np.random.default_rng(0)

    def one(path, leaf):
        if len(leaf.shape) < 2:
            return np.ones(leaf.shape, np.float32)
        size = np.sqrt(np.prod(leaf.shape[:-1]))
        return (draw.normal(size=leaf.shape) / size).astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, objective.frozen_shapes)


def eight(name):
    """Print the losses on one of the eight devices, and on each mesh of all."""
    sharding.SMALLEST_SPLIT = 16  # so that small tensors are split too
    found = {}
    meshes = [(1, 1, 1, 1), *MESHES[name]]
    for shape in meshes:
        sizes = dict(zip(sharding.MESH_AXES, shape, strict=True))
        devices = jax.devices()[: int(np.prod(shape))]
        found[str(shape)] = run(name, make_mesh(sizes, devices))
    print(json.dumps(found))


@pytest.mark.parametrize("name", MESHES)
def test_eight_devices_train_as_one(name):
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "PYTHONPATH": "tests:."}
    result = subprocess.run(
        [sys.executable, __file__, name],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (one, _), *others = json.loads(result.stdout).values()
    assert len(one) == STEPS and max(one) > min(one)
    for losses, split in others:
        np.testing.assert_allclose(losses, one, rtol=1e-5)
        assert split


if __name__ == "__main__":
    eight(sys.argv[1])
