import json
import sys

import pytest
from evaluation.flat import FlatRenderer, actors

from xactor_jax import evaluate
from xactor_jax.data.shards import write_shards
from xactor_jax.errors import InputError

PLACES = ["--footage=f", "--actors=a", "--face_models=m", "--output=o"]


def test_speech_takes_part_only_where_recordings_are_given():
    assert evaluate.flags(PLACES).suites == ["reenactment", "identity", "motion"]
    assert evaluate.flags([*PLACES, "--speech=s"]).suites == [
        "reenactment",
        "identity",
        "motion",
        "speech",
    ]
    assert evaluate.flags(["--actors=a", "--output=o", "--only=identity"]).suites == ["identity"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--actors=a", "--output=o", "--only=identity,motion"], "--footage is missing; motion"),
        ([*PLACES, "--only=speech"], "--speech is missing"),
        ([*PLACES, "--only=smell"], "choose from reenactment, identity"),
        ([*PLACES, "--clips=1"], "--clips=1: use 2 to"),
        ([*PLACES, "--steps=0"], "--steps=0"),
        (["--output=o"], "--footage is missing"),
        (PLACES[:3], "--output"),
    ],
)
def test_bad_flags_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate.flags(arguments)


def test_a_missing_checkpoint_is_named(tmp_path):
    chosen = evaluate.flags([*PLACES, f"--checkpoint={tmp_path / 'none'}"])
    with pytest.raises(InputError, match="none: no such checkpoint folder"):
        evaluate.Evaluation(chosen)


def test_a_run_prints_a_table_and_leaves_results_and_plots(tmp_path, monkeypatch, capsys):
    write_shards(tmp_path / "actors", {"test": actors(6)})
    monkeypatch.setattr(evaluate, "PortraitRenderer", lambda path: FlatRenderer())
    monkeypatch.setattr(evaluate, "start_up", lambda: None)
    output = tmp_path / "results"
    arguments = [f"--checkpoint={tmp_path}", f"--actors={tmp_path / 'actors'}", "--only=identity"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments, f"--output={output}"])
    evaluate.main()
    assert "jaw, r" in capsys.readouterr().out
    content = json.loads((output / "results.json").read_text())
    assert content["flags"]["only"] == "identity"
    assert content["numbers"]["identity"]["jaw"] > 0.99
    assert (output / "identity.png").is_file()
