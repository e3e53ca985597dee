"""What is evaluated on several processes is what one process would find."""

import json

import pytest
from multiprocess.processes import AUTOENCODER, end_of, start
from small_models import clips
from small_models import quick_compilation as quick_compilation


@pytest.mark.slow
def test_an_autoencoder_is_evaluated_and_shown_by_two_processes_as_by_one(
    tmp_path, tmp_path_factory
):
    found = {}
    for count in (1, 2):
        workdir = tmp_path / str(count)
        workdir.mkdir()
        folders = f"--config.data.folders={clips(tmp_path_factory)}"
        codes, _ = end_of(start(count, workdir, folders, training=AUTOENCODER))
        assert codes == [0] * count, (workdir / "errors_0").read_text()
        line = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
        found[count] = {name: line[name] for name in line if name.startswith("evaluate/")}
        samples = sorted(path.name for path in (workdir / "samples" / "step_00000003").iterdir())
        assert samples == ["actor.png", "footage.png"]
    # In decibels; float32 sums in another order.
    assert found[2] == pytest.approx(found[1], abs=1e-2)
