"""The benchmark of the input counts windows as they are, and reads an index as trainings do."""

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import input
from configs.common import base
from xactor_jax.data.shards import decode_frames


class Line:
    """A task that fits a line; it counts what is read."""

    frozen = {}  # noqa: RUF012

    def __init__(self):
        self.read = 0

    def init(self, key):
        return {"slope": jnp.zeros(())}

    def loss(self, params, frozen, batch, key):
        return jnp.mean((params["slope"] * batch["x"] - batch["y"]) ** 2), {}

    def source(self):
        return range(100)

    def load(self, element, rng):
        self.read += 1
        return {"x": np.float32(element), "y": np.float32(2 * element)}


def test_the_loader_is_compared_with_the_step_of_the_same_task(monkeypatch):
    config, task = base("line"), Line()
    config.batch_size, config.data = 4, ConfigDict({"folders": ()})
    monkeypatch.setitem(input.TASKS, "line", type("File", (), {"get_config": lambda size: config}))
    monkeypatch.setattr(input, "make_task", lambda config: task)
    found = input.against_training("line", "tiny", ("a",), "", seconds=0.2, turns=1)
    for rate in ("per_second", "per_core_second"):
        ratio = found[f"loaded_{rate}"] / found[f"taken_{rate}"]
        np.testing.assert_allclose(found[f"loaded_to_taken_{rate}"], ratio)
    assert config.data.folders == ("a",)
    # No window was counted that was not read.
    assert 0 < 0.2 * found["loaded_per_second"] <= task.read


def test_an_index_is_opened_and_read():
    found = input.indexed(200, windows=64)
    assert set(found) == {"open_a_clip", "find_a_window"} and min(found.values()) > 0


def test_textures_weigh_what_film_does():
    actors = list(input.textures("actor", 2, frames=3))
    assert actors[0].motion == actors[1].motion
    # GRID at 192 pixels has 11 700 bytes a frame.
    assert 6_000 < np.mean([len(frame) for clip in actors for frame in clip.frames]) < 20_000
    assert decode_frames(actors[0], [0, 2]).std() > 20
