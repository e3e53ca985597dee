"""What is evaluated on several processes is what one process would find."""

import json

import pytest
from multiprocess.processes import AUTOENCODER, MOTION, end_of, start
from small_models import clips, renderer_file
from small_models import quick_compilation as quick_compilation

FULL_SEQUENCE = (
    *("--config.motion.chunk=20", "--config.mesh.context=1", "--config.mesh.tensor=2"),
    *("--config.forcing.per_frame=0", "--config.forcing.clean_history=0"),
)


def evaluated(tmp_path, training, *flags):
    """The names of the samples and the numbers of an evaluation, by one process and by two."""
    found = {}
    for count in (1, 2):
        workdir = tmp_path / str(count)
        workdir.mkdir()
        codes, _ = end_of(start(count, workdir, *flags, training=training))
        assert codes == [0] * count, (workdir / "errors_0").read_text()
        line = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
        samples = sorted(path.name for path in (workdir / "samples" / "step_00000003").iterdir())
        numbers = {name: line[name] for name in line if name.startswith("evaluate/")}
        found[count] = samples, numbers
    return found[1], found[2]


@pytest.mark.slow
def test_an_autoencoder_is_evaluated_and_shown_by_two_processes_as_by_one(
    tmp_path, tmp_path_factory
):
    folders = f"--config.data.folders={clips(tmp_path_factory)}"
    alone, together = evaluated(tmp_path, AUTOENCODER, folders)
    assert together[0] == alone[0] == ["actor.png", "footage.png"]
    # In decibels; float32 sums in another order.
    assert together[1] == pytest.approx(alone[1], abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("way", [(), FULL_SEQUENCE], ids=["forced", "full sequence"])
def test_motion_is_acted_and_shown_by_two_processes_as_by_one(way, tmp_path, tmp_path_factory):
    data = (
        f"--config.data.folders={clips(tmp_path_factory)}",
        f"--config.data.cache={tmp_path / 'latents'}",
        f"--config.renderer={renderer_file(tmp_path_factory)}",
    )
    alone, together = evaluated(tmp_path, MOTION, *data, *way)
    assert together[0] == alone[0] == ["latents.png"]
    assert together[1] == pytest.approx(alone[1], abs=1e-3)  # float32 sums in another order
