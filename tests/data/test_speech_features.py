"""Bounded windows of wav2vec2: each block of frames hears just its own window, live or not."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_models import quick_compilation as quick_compilation
from small_models import wav2vec2_file

from xactor_jax.data.audio_features import audio_features
from xactor_jax.data.speech_features import SpeechModel, SpeechWindow
from xactor_jax.errors import InputError

WINDOW = SpeechWindow(before=6, block=3, after=2)
FRAME = 640
AUDIO = np.random.default_rng(0).normal(size=10 * FRAME + 100).astype(np.float32)


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    path = tmp_path_factory.mktemp("speech") / "wav2vec2.safetensors"
    network = wav2vec2_file(path)
    return SpeechModel(path, WINDOW), network


def test_every_frame_is_heard_in_the_window_of_its_block(heard):
    model, network = heard
    features = audio_features(AUDIO, 11, model)
    assert features.shape == (11, model.width) == (11, 2 * 16)
    padded = np.concatenate([np.zeros(6 * FRAME), AUDIO, np.zeros(10 * FRAME)]).astype(np.float32)
    for block in range(4):
        window = padded[3 * block * FRAME : (3 * block + 11) * FRAME]
        states = np.asarray(network(jnp.asarray(window[None]), 11))[0]
        expected = np.concatenate([states[1], states[2]], axis=-1)[6:9]
        found = features[3 * block : 3 * block + 3]
        # fp32, compiled otherwise; what is at the end of the recording is left out.
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-4)


@pytest.mark.parametrize("piece", [137, 640, 5000])
def test_however_speech_arrives_its_features_are_the_same(heard, piece):
    model, _ = heard
    stream = model.stream(1.0)
    parts = [stream.push(AUDIO[n : n + piece]) for n in range(0, len(AUDIO), piece)]
    np.testing.assert_array_equal(
        np.concatenate([*parts, stream.finish()]), audio_features(AUDIO, 11, model)
    )


@pytest.mark.parametrize("frames", [1, WINDOW.block, WINDOW.block + 1])
def test_frames_are_known_once_what_they_need_is_heard(heard, frames):
    model, _ = heard
    stream, needed = model.stream(1.0), model.needed(frames)
    assert len(stream.push(AUDIO[: needed - 1])) < frames
    assert len(stream.push(AUDIO[needed - 1 : needed])) == WINDOW.block


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match=r"none\.safetensors: no such file.*convert wav2vec2"):
        SpeechModel(tmp_path / "none.safetensors")


def test_other_weights_or_windows_have_other_names(heard, tmp_path):
    model, _ = heard
    path = tmp_path / "wav2vec2.safetensors"
    wav2vec2_file(path, seed=1)
    other = SpeechModel(path, WINDOW)
    longer = SpeechModel(path, dataclasses.replace(WINDOW, after=3))
    assert len({repr(model), repr(other), repr(longer)}) == 3
    assert repr(other) == repr(SpeechModel(path, WINDOW))
