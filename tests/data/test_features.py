"""The commands that compute features say for which folders, by which weights."""

import sys
from pathlib import Path

import numpy as np
import pytest
from media.drawn import DRAWN, talking_clip, write_media

from xactor_jax import prepare
from xactor_jax.command import run
from xactor_jax.data import features

RENDERER = str(Path(__file__).parents[2] / "checkpoints" / "tiny" / "renderer.safetensors")


@pytest.fixture
def asked(monkeypatch):
    """What `add_features` was called with."""
    calls = []
    monkeypatch.setattr(features, "add_features", lambda *given: calls.append(given))
    monkeypatch.setattr(features, "start_up", lambda: None)
    return calls


def test_every_folder_is_given_its_features(asked, monkeypatch, tmp_path, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    flags = [f"--folders={one},{other}", "--renderer=weights", "--wav2vec2=ears"]
    monkeypatch.setattr(sys, "argv", ["features", *flags])
    run(features.main)
    assert asked == [(one, "weights", "ears"), (other, "weights", "ears")]
    assert capsys.readouterr().out.count("beside the shards") == 2


def test_preparation_adds_features_at_its_end(asked, monkeypatch, tmp_path):
    (tmp_path / "in").mkdir()
    tone = 0.2 * np.sin(np.arange(19_200, dtype=np.float32) / 10)
    write_media(tmp_path / "in" / "a.mkv", talking_clip(30), audio=tone)
    flags = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--size=32"]
    flags += [f"--set={change}" for change in DRAWN]
    for more, wanted in (([], []), ([f"--features={RENDERER}"], [(tmp_path / "out", RENDERER)])):
        monkeypatch.setattr(sys, "argv", ["prepare", *flags, *more])
        run(prepare.main)
        assert asked == wanted
