"""Every task takes the same steps on one device and on eight, and needs no more than it did.

Run as a program this file is the process that has eight devices; as `python
tests/test_sharded_training.py golden` it writes anew what is needed (tests/golden/plans.json).
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small_models import quick_compilation as quick_compilation
from small_models import random_examples, random_weights, small_objective

from xactor_jax import sharding
from xactor_jax.optim import make_optimizer
from xactor_jax.planning.chips import topology
from xactor_jax.planning.estimate import Planned, collectives
from xactor_jax.planning.program import Program
from xactor_jax.sharding import batch_sharding, make_mesh, place, tensor_shardings
from xactor_jax.train import jit_step, make_step, new_state, random_keys

STEPS = 20
# Learning rates at which Adam does not blow up the last bits. At 1e-4 one device parts from itself
# by 6e-4 within twenty steps of the autoencoder, if its first weights are changed by 1e-7 of
# themselves, and eight devices part from it as far.
FIELDS = {"batch_size": 8, "optimizer.learning_rate": 1e-4}
SLOWLY = {"optimizer.learning_rate": 2e-6}
MESHES = {
    "autoencoder": [(1, 8, 1, 1), (2, 2, 1, 2)],
    "autoencoder_dit": [(1, 4, 1, 2)],
    "motion": [(1, 8, 1, 1), (1, 2, 4, 1), (2, 1, 2, 2)],
    "video": [(1, 8, 1, 1), (1, 2, 4, 1)],
    "video_dit": [(1, 2, 2, 2)],
}
SLOW = ("autoencoder", "autoencoder_dit", "video")
GOLDEN = Path(__file__).parent / "golden" / "plans.json"
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "8",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), "."]),
}
OWN = {
    "autoencoder": SLOWLY,
    "autoencoder_dit": SLOWLY,
    "motion": {"motion.heads": 2, "motion.scan": True, "motion.rematerialise": True},
}


def run(name, mesh):
    """Losses of all steps, whether any parameter was split, and what the step needs."""
    objective, config = small_objective(name, **(FIELDS | OWN.get(name, {})))
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
        batches = [jax.device_put(batch, batch_sharding(mesh)) for batch in batches]
        step = step.lower(state, frozen, batches[0], step_key).compile()
        losses = []
        for number in range(STEPS):
            state, metrics = step(state, frozen, batches[number % len(batches)], step_key)
            losses.append(float(metrics["loss"]))
        split = [not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params)]
    return {"losses": losses, "split": any(split), **needs(step)}


def needs(compiled):
    """Bytes of one device, and how many exchanges of each kind there are."""
    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    peak += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    totals = collectives(Program(compiled.as_text()))
    return {"bytes": peak, "collectives": {kind: n["count"] for kind, n in totals.items()}}


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


@functools.cache
def of_eight(name):
    """What `eight` prints."""
    result = subprocess.run(
        [sys.executable, __file__, name],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


tasks = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in MESHES]
)


@tasks
def test_eight_devices_train_as_one(name):
    one, *others = of_eight(name).values()
    assert len(one["losses"]) == STEPS and max(one["losses"]) > min(one["losses"])
    for found in others:
        np.testing.assert_allclose(found["losses"], one["losses"], rtol=1e-5)
        assert found["split"]


@tasks
def test_a_step_needs_no_more_than_it_did(name):
    golden = json.loads(GOLDEN.read_text())["cpu"].get(jax.__version__, {}).get(name)
    if golden is None:
        pytest.skip(f"other versions of JAX compile otherwise; none kept for {jax.__version__}")
    for mesh, found in of_eight(name).items():
        assert found["bytes"] == pytest.approx(golden[mesh]["bytes"], rel=0.03)
        assert found["collectives"] == golden[mesh]["collectives"]


@pytest.mark.libtpu
def test_a_step_for_a_tpu_needs_no_more_than_it_did():
    import libtpu

    golden = json.loads(GOLDEN.read_text())["tpu"].get(libtpu.__version__)
    if golden is None:
        pytest.skip(f"none kept for libtpu {libtpu.__version__}")
    found = of_tpu()
    assert found["bytes"] == pytest.approx(golden["bytes"], rel=0.03)
    assert found["collectives"] == golden["collectives"]


def of_tpu():
    """The same of the motion task on a slice of eight chips."""
    objective, config = small_objective("motion", **FIELDS, **OWN["motion"])
    mesh = make_mesh({"replica": 1, "fsdp": 2, "context": 4, "tensor": 1}, topology("v5e:2x4")[0])
    step = Planned(objective, config, mesh).compile_step(config.batch_size)
    totals = collectives(step.program)
    counts = {kind: total["count"] for kind, total in totals.items()}
    return {"bytes": step.total, "collectives": counts}


def write_golden():
    """Keep what the installed versions need; what others needed stays."""
    import libtpu

    kept = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"cpu": {}, "tpu": {}}
    kept["tpu"][libtpu.__version__] = of_tpu()
    mine = kept["cpu"].setdefault(jax.__version__, {})
    for name in sorted(MESHES, key=SLOW.__contains__):
        mine[name] = {
            mesh: {key: found[key] for key in ("bytes", "collectives")}
            for mesh, found in of_eight(name).items()
        }
        GOLDEN.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    write_golden() if sys.argv[1] == "golden" else eight(sys.argv[1])
