import subprocess
import sys

import pytest
from absl import flags

from xactor_jax.errors import InputError
from xactor_jax.main import parse

CONFIG = """
from ml_collections import ConfigDict

def get_config(size="tiny"):
    if size != "tiny":
        raise ValueError(f"size {size!r}: use tiny")
    return ConfigDict({"task": "juggling", "steps": 3, "size": size})
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(CONFIG)
    return path


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=w"], "--config is missing"),
        (["--config=CONFIG"], "--workdir is missing"),
        (["--config=absent.py", "--workdir=w"], r"absent\.py: cannot read"),
        (["--config=README.md", "--workdir=w"], r"not a config file: .*README\.md"),
        (["--config=CONFIG:huge", "--workdir=w"], "use tiny"),
        (["--config=CONFIG", "--workdir=w", "--wrkdir=v"], "wrkdir"),
    ],
)
def test_wrong_flags_are_one_line(config, monkeypatch, arguments, message):
    arguments = ["main", *(argument.replace("CONFIG", str(config)) for argument in arguments)]
    monkeypatch.setattr(sys, "argv", arguments)
    for name in ("config", "workdir"):
        flags.FLAGS[name].unparse()
    with pytest.raises(InputError, match=message) as error:
        parse(arguments)
    flags.FLAGS.mark_as_parsed()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "--config.optimizer.lr=1",
            "--config.optimizer.lr: no such field in this config (see --help)",
        ),
        ("--config.stepz=3", 'Did you mean "steps" instead of "stepz"? (see --help)'),
        ("--config.steps=3", "config.task='juggling': use autoencoder, motion or video"),
    ],
)
def test_the_command_ends_with_one_line_and_code_2(config, tmp_path, override, message):
    assert refusal(config, tmp_path / "run", override) == f"error: {message}\n"


def test_other_processes_are_not_waited_for_where_there_is_no_cluster(config, tmp_path):
    said = refusal(config, tmp_path / "run", "--distributed")
    assert said.startswith("error: --distributed: no cluster is found (")
    assert said.endswith("; leave it out on a single machine\n") and said.count("\n") == 1


def refusal(config, workdir, flag):
    """What the command says when it refuses to train."""
    arguments = [f"--config={config}", f"--workdir={workdir}", flag]
    result = subprocess.run(
        [sys.executable, "-m", "xactor_jax.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert not workdir.exists()
    return result.stderr
