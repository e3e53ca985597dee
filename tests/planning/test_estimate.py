"""The search for the largest batch, and which mesh is best, on trainings whose needs are known."""

import jax
import pytest
from small_models import small_objective

from xactor_jax.errors import InputError
from xactor_jax.planning import estimate
from xactor_jax.planning.chips import TPUS, topology
from xactor_jax.planning.estimate import (
    Compiled,
    Planned,
    advice,
    collectives,
    largest_batch,
    mesh_shapes,
    roofline,
)
from xactor_jax.planning.report import best
from xactor_jax.sharding import MESH_AXES, make_mesh

FIXED, EACH = 1000, 70


@pytest.mark.parametrize(
    ("needs", "memory", "largest"),
    [
        (lambda batch: FIXED + EACH * batch, 5000, 56),  # 57.1 examples, in eights
        (lambda batch: FIXED + EACH * batch, FIXED + EACH * 64, 64),
        (lambda batch: FIXED + EACH * batch, 1200, 0),
        # A line through the first two guesses too high; the next guess fits.
        (lambda batch: FIXED + EACH * batch + (500 if batch > 32 else 0), 5000, 48),
    ],
)
def test_the_largest_batch_is_found_in_a_few_compilations(needs, memory, largest):
    tried = []

    def compile_at(batch):
        tried.append(batch)
        return Compiled({"all": needs(batch)}, 0.0, None)

    first = Compiled({"all": needs(16)}, 0.0, None)
    assert largest_batch(compile_at, 16, first, 8, memory) == largest
    assert len(tried) <= 4 and all(batch % 8 == 0 for batch in tried)


def test_meshes_divide_batch_and_window():
    shapes = mesh_shapes(16, 2, rows=8, parts=6)
    assert {"replica": 2, "fsdp": 4, "context": 2, "tensor": 1} in shapes
    assert {"replica": 2, "fsdp": 1, "context": 1, "tensor": 8} in shapes
    for mesh in shapes:
        assert mesh["replica"] * mesh["fsdp"] * mesh["context"] * mesh["tensor"] == 16
        assert 8 % (mesh["replica"] * mesh["fsdp"]) == 0 and 6 % mesh["context"] == 0
    assert len({tuple(mesh.values()) for mesh in shapes}) == len(shapes)


def test_the_best_is_the_fastest_that_fits():
    def plan(fits, seconds, needed):
        return {"fits": fits, "roofline_seconds": seconds, "bytes_per_chip": needed}

    plans = [plan(False, 0.1, 9), plan(True, 0.3, 2), plan(True, 0.2, 3), plan(False, None, 20)]
    assert best(plans) == plans[2]
    assert best([plans[3], plans[0]]) == plans[0]
    impossible = {"mesh": {"replica": 1, "fsdp": 3}, "impossible": "three do not divide it"}
    assert best([impossible, *plans]) == plans[2]
    assert best([impossible, plans[3]]) == plans[3]
    with pytest.raises(InputError, match="batch_size"):
        best([])
    with pytest.raises(InputError, match="no mesh is possible; fsdp=3: three do not divide it"):
        best([impossible, impossible])


@pytest.mark.parametrize(("accumulate", "tip"), [(1, True), (4, True), (8, False)])
def test_only_more_slices_of_a_batch_than_there_are_is_advice(accumulate, tip):
    objective, config = small_objective(
        "motion", **{"batch_size": 8, "optimizer.accumulate": accumulate}
    )
    planned = Planned(objective, config, make_mesh(config.mesh, jax.devices()[:1]))
    tips = advice(planned, 2 * TPUS["v5e"].memory, None, TPUS["v5e"])
    assert any("optimizer.accumulate=8: take a batch in 8 parts" in line for line in tips) == tip
    assert any("optimizer.accumulate" in line for line in tips) == tip


def test_a_failure_of_the_compiler_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: no such shape\n\nSuspected code: elsewhere")

    objective, config = small_objective("motion")
    planned = Planned(objective, config, make_mesh(config.mesh, jax.devices()[:1]))
    monkeypatch.setattr(jax.stages.Lowered, "compile", fail)
    with pytest.raises(InputError, match=r"^the compiler fails.* \(INTERNAL: no such shape\); try"):
        planned.compile_step(config.batch_size)


@pytest.mark.parametrize("refusal", ["No such compile option: 'x'", "Ran out of memory"])
def test_a_compiler_without_the_option_that_saves_time_is_asked_without_it(refusal):
    class Lowered:
        def compile(self, compiler_options=None):
            if compiler_options:
                raise jax.errors.JaxRuntimeError(f"INVALID_ARGUMENT: {refusal}")
            return "compiled"

    if refusal.startswith("No such"):
        assert estimate._compile(Lowered(), "tpu") == "compiled"
    else:
        with pytest.raises(jax.errors.JaxRuntimeError, match=refusal):
            estimate._compile(Lowered(), "tpu")


@pytest.mark.libtpu
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("v4:2x2x1", 4),
        ("v5e:1x1", 1),
        ("v5e:2x4", 8),
        ("v5p:2x2x1", 4),
        ("v6e:1x1", 1),
        ("v6e:2x4", 8),
        ("tpu7x:1x1x1", 2),
        ("tpu7x:2x2x1", 8),
    ],
)
def test_slices_of_every_generation_can_be_planned_for(name, count):
    devices, chip = topology(name)
    assert len(devices) == count
    assert chip is TPUS[name.partition(":")[0]]
    with pytest.raises(InputError, match="no such slice"):
        topology("v5e:3x5")


def planned_for(name, slices, shape):
    """A small training on slices, its step compiled, and what its roofline and the chip are."""
    devices, chip = topology(name, slices)
    fields = {"batch_size": 16, "motion.width": 256, "motion.heads": 4}
    objective, config = small_objective("motion", **fields)
    planned = Planned(
        objective, config, make_mesh(dict(zip(MESH_AXES, shape, strict=True)), devices)
    )
    step = planned.compile_step(config.batch_size)
    return planned, step, roofline(step, planned.mesh, chip), chip


@pytest.mark.libtpu
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("v4:2x2x1", (1, 4, 1, 1)),
        ("v5p:2x2x2", (1, 8, 1, 1)),
        ("v6e:4x4", (1, 8, 2, 1)),
        ("tpu7x:2x2x1", (1, 4, 2, 1)),
    ],
)
def test_a_step_compiles_for_every_generation(name, shape):
    planned, step, busy, chip = planned_for(name, 1, shape)
    share = 4 * planned.learnt / planned.mesh.shape["fsdp"]
    # Vectors are not worth a split.
    assert share <= step.kinds["parameters"] < 1.1 * share
    assert step.total < chip.memory
    # Gradients are summed over all devices, and on a single slice no network is needed.
    assert collectives(step.program)["all-reduce"]["bytes"] > 0
    assert busy["links"] > 0 and busy["network"] == 0


@pytest.mark.libtpu
def test_slices_exchange_their_gradients_over_the_network():
    planned, _, busy, chip = planned_for("v5e:2x2", 2, (2, 4, 1, 1))
    # Of two sums each device sends half of its share there, and as much back.
    gradients = 4 * planned.learnt / 4
    assert busy["network"] * chip.network == pytest.approx(gradients, rel=0.1)
    assert busy["links"] > 0
