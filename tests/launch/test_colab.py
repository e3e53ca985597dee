"""The notebook's cells, run by IPython in an empty folder without a network.

Stand-ins: `git clone` gives this repository, `uv` an environment that is there already, and Colab's
upload the files of the demo.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from small_models import checkpoint

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "launch" / "colab.ipynb"

RUNNER = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        source = "".join(cell["source"]).replace('REPOSITORY = ""', 'REPOSITORY = "here"')
        shell.run_cell(source).raise_error()
        assert not shell.user_ns.get("_exit_code"), cell["source"]
print("shown:", type(shell.user_ns["_"]).__name__)
"""


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def short_speech(path):
    """The first 0.8 seconds of the demo's recording."""
    with av.open(ROOT / "demo" / "speech.wav") as source, av.open(path, "w") as target:
        [stream] = source.streams.audio
        copy = target.add_stream("pcm_s16le", rate=stream.rate, layout=stream.layout.name)
        for frame in source.decode(stream):
            if frame.time > 0.8:
                break
            target.mux(copy.encode(frame))
        target.mux(copy.encode(None))


@pytest.mark.parametrize("weights", ["random", pytest.param("tiny", marks=pytest.mark.slow)])
def test_the_cells_make_a_video_and_show_it(tmp_path, tmp_path_factory, weights):
    bundled = ROOT / "checkpoints" / "tiny"
    folder = bundled if weights == "tiny" else checkpoint(tmp_path_factory)
    bin, colab = tmp_path / "bin", tmp_path / "modules" / "google" / "colab"
    program(
        bin / "git",
        f'[ "$1" = clone ] || exit 1\nmkdir "$3"\nln -s "{ROOT}"/[a-z]* "$3"\n'
        f'rm "$3/checkpoints"\nmkdir "$3/checkpoints"\nln -s "{folder}" "$3/checkpoints/tiny"\n',
    )
    program(tmp_path / "python", f'exec "{sys.executable}" "$@"\n')
    program(
        bin / "uv",
        f'[ "$1" = venv ] && mkdir -p .venv/bin && ln -sf "{tmp_path}/python" .venv/bin/python\n'
        f'echo "$@" >> "{tmp_path}/installed"\n',
    )
    colab.mkdir(parents=True)
    short_speech(tmp_path / "speech.wav")
    uploads = [str(ROOT / "demo" / "portrait.png"), str(tmp_path / "speech.wav")]
    (colab / "__init__.py").write_text("")
    (colab / "files.py").write_text(
        f"uploads = {uploads}\ndef upload():\n    return [uploads.pop(0)]\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", RUNNER, NOTEBOOK],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{bin}:{os.environ['PATH']}",
            "PYTHONPATH": str(tmp_path / "modules"),
            "JAX_PLATFORMS": "cpu",
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "no_proxy": "",
            "http_proxy": "http://localhost:1",
            "https_proxy": "http://localhost:1",
        },
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "shown: Video" in result.stdout
    # Colab tells uv to take the system's Python, unless it is told otherwise.
    assert "--python=.venv --editable ." in (tmp_path / "installed").read_text()
    with av.open(tmp_path / "xactor_jax" / "speaks.mp4") as video:
        frames = sum(1 for _ in video.decode(video=0))
    # 25 a second.
    assert 18 <= frames <= 22


def test_the_notebook_holds_no_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
