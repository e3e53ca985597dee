"""The generate command, run in this process with small random weights."""

import functools
import sys

import numpy as np
import pytest
from media.drawn import drawn_face
from PIL import Image
from scipy.io import wavfile
from small_models import checkpoint

from xactor_jax import generate
from xactor_jax.command import run
from xactor_jax.release import open_checkpoint, open_renderer


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoint(tmp_path_factory)


@pytest.fixture(scope="module", autouse=True)
def opened_once():
    """A checkpoint is opened, and its models compiled, once for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        for opener in (open_checkpoint, open_renderer):
            patch.setattr(generate, opener.__name__, functools.cache(opener))
        yield


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    Image.fromarray(drawn_face()).save(path)
    return path


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command in this process: exit code, stdout, stderr."""

    def call(**flags):
        arguments = [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in flags.items()
            if value is not None
        ]
        monkeypatch.setattr(sys, "argv", ["generate", *arguments])
        capsys.readouterr()
        try:
            run(generate.main)
            code = 0
        except SystemExit as end:
            code = end.code
        return (code, *capsys.readouterr())

    return call


def recording(path, seconds, rate=16_000, channels=1):
    """Quiet noise with a 1 kHz burst at 0.6 of its time."""
    time = np.arange(round(seconds * rate)) / rate - 0.6 * seconds
    sound = 0.01 * np.random.default_rng(0).normal(size=len(time))
    sound += 0.7 * np.cos(2 * np.pi * 1000 * time) * np.exp(-((time / 0.01) ** 2))
    values = np.round(32767 * sound).astype(np.int16)
    wavfile.write(path, rate, values if channels == 1 else np.stack([values, values // 2], axis=1))
    return path
