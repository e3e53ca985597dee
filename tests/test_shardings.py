"""Where every tensor of every config lies, kept as a file: tests/golden/shardings.txt.gz.

`python tests/test_shardings.py` writes it anew; look at what has changed before you keep it.
"""

import gzip
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from configs import autoencoder, drift, encoder, motion, video
from xactor_jax.config import build
from xactor_jax.models.renderer import RendererConfig
from xactor_jax.sharding import MESH_AXES, tensor_shardings
from xactor_jax.state import named_tensors
from xactor_jax.tasks import make_objective

GOLDEN = Path(__file__).parent / "golden" / "shardings.txt.gz"
MESH = (1, 8, 1, 2)
CONFIGS = {
    "autoencoder": autoencoder,
    "drift": drift,
    "encoder": encoder,
    "motion": motion,
    "video": video,
}
EACH = [f"{name}:{size}" for name, file in CONFIGS.items() for size in file.SLICES]
SLOW = (
    *("autoencoder:full", "autoencoder:full_dit", "encoder:full", "encoder:full_dit"),
    "video:full",
)


def lines_of(config):
    """Of a config's parameters: name, shape and axes, one a line."""
    name, size = config.split(":")
    renderer = None
    if name not in ("autoencoder", "encoder"):
        of = autoencoder.get_config("tiny" if name == "drift" else size)
        renderer = build(RendererConfig, of.renderer.to_dict())
    objective = make_objective(CONFIGS[name].get_config(size), renderer)
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    mesh = AbstractMesh(MESH, MESH_AXES, axis_types=(AxisType.Auto,) * 4)
    specs = named_tensors(tensor_shardings(shapes, mesh))
    return [
        f"{config} {name} {tuple(leaf.shape)} {tuple(specs[name].spec)}"
        for name, leaf in named_tensors(shapes).items()
    ]


@pytest.mark.parametrize(
    "config", [pytest.param(c, marks=pytest.mark.slow if c in SLOW else ()) for c in EACH]
)
def test_tensors_lie_where_they_did(config):
    with gzip.open(GOLDEN, "rt") as file:
        golden = [line for line in file.read().splitlines() if line.startswith(f"{config} ")]
    assert lines_of(config) == golden


if __name__ == "__main__":
    with GOLDEN.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for each in EACH:
            file.write(("\n".join(lines_of(each)) + "\n").encode())
