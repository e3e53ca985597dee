"""`generate --driving`: as long as the video and heard with it, moved by it, clear when it cannot.

The weights are random, so the pictures mean nothing; everything around them is real.
"""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from generation import command as command
from generation import opened_once as opened_once
from generation import portrait as portrait
from generation import recording
from generation import weights as weights
from media.drawn import drawn_face, grey_frames, talking_clip, write_media
from media.heard import all_heard
from PIL import Image
from scipy.io import wavfile
from small_models import quick_compilation as quick_compilation

from xactor_jax import batches, generate
from xactor_jax.checkpoint import load_weights, save_weights
from xactor_jax.generate import Stopwatch, changes_added, portrait_of, reenact, view_size
from xactor_jax.media import driving
from xactor_jax.media.audio import has_sound
from xactor_jax.media.driving import Driver, find_driver
from xactor_jax.media.video import read_video
from xactor_jax.models.renderer import Sampling
from xactor_jax.release import WINDOW


@pytest.fixture(scope="module")
def renderer_alone(weights, tmp_path_factory):
    """A checkpoint folder without motion.safetensors: reenactment needs none."""
    folder = tmp_path_factory.mktemp("renderer")
    arrays, metadata = load_weights(weights / "renderer.safetensors")
    # Random, the one feature map that motion passes through is below zero, and rectified, for most
    # faces: they would all have the same latent.
    arrays["params"]["renderer"]["encoder"]["conv6"]["bias"] += 1
    save_weights(folder / "renderer.safetensors", arrays, metadata)
    return folder


@pytest.fixture
def reenacted(command, renderer_alone, portrait, tmp_path):
    """Run the command on a film; where the video is."""

    def call(film, name="out", **flags):
        output = tmp_path / f"{name}.mp4"
        flags = {"image": portrait, "checkpoint": renderer_alone} | flags
        code, out, err = command(driving=film, output=output, **flags)
        assert (code, err) == (0, "")
        assert out.startswith(f"{output}: ") and out.count("\n") == 1
        return output

    return call


def burst_of(sound):
    """Seconds at which the burst of a `recording` is loudest."""
    samples, rate = sound
    loudness = np.convolve(samples[:, 0] ** 2, np.ones(rate // 100), "same")
    return loudness.argmax() / rate


def frames_of(path):
    return np.stack(list(read_video(path))).astype(int)


@pytest.mark.parametrize("rate", [24, 25, 30])
def test_the_video_lasts_as_long_as_the_film_and_sounds_like_it(reenacted, tmp_path, rate):
    frames, times = talking_clip(rate), [t / rate for t in range(rate)]
    sound = wavfile.read(recording(tmp_path / "a.wav", 1.0))[1] / 32767
    film = write_media(tmp_path / "film.mkv", frames, times, audio=sound)
    with av.open(str(reenacted(film))) as container:
        video, heard = container.streams.video[0], container.streams.audio[0]
        assert (video.average_rate, heard.rate, heard.channels) == (25, 16_000, 1)
        assert abs(sum(1 for _ in container.decode(video)) - 25) <= 1
        # The codec works in blocks of 1024 samples.
        assert abs(float(heard.duration * heard.time_base) - 1) <= 1 / 25 + 1024 / 16_000
    assert abs(burst_of(all_heard(tmp_path / "out.mp4")) - 0.6) < 0.005


def test_a_film_without_sound_gives_a_video_without(reenacted, tmp_path):
    film = write_media(tmp_path / "film.mp4", talking_clip(20))
    output = reenacted(film)
    assert len(frames_of(output)) == 20
    assert not has_sound(output)


# Longer than the film, and shorter.
@pytest.mark.parametrize("seconds", [1.5, 0.5])
def test_other_sound_is_heard_as_long_as_the_film(reenacted, tmp_path, seconds):
    own = 0.1 * np.random.default_rng(0).normal(size=16_000)
    film = write_media(tmp_path / "film.mkv", talking_clip(25), audio=own)
    output = reenacted(film, audio=recording(tmp_path / "a.wav", seconds, 44_100, 2))
    assert len(frames_of(output)) == 25
    samples, rate = all_heard(output)
    assert (rate, samples.shape[1]) == (44_100, 2)
    assert abs(len(samples) / rate - min(seconds, 1.0)) <= 1024 / rate
    assert abs(burst_of((samples, rate)) - 0.6 * seconds) < 0.005


def test_the_same_command_makes_the_same_video(reenacted, tmp_path):
    film = write_media(tmp_path / "film.mkv", talking_clip(30))
    one, two, other = (reenacted(film, n, seed=seed) for n, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert one.read_bytes() == two.read_bytes()
    assert np.abs(frames_of(one) - frames_of(other)).mean() > 2


def test_the_renderer_is_given_what_the_film_shows(renderer_alone, monkeypatch, tmp_path):
    renderer = generate.open_renderer(str(renderer_alone))
    config = renderer.config
    driver = find_driver(write_media(tmp_path / "film.mkv", talking_clip(40, drift=0.5)))
    crops = np.stack(list(driver.crops(view_size(config), config.encoder.image_size)))
    given = {}

    def animate(picture, crop, motion, box, noise, sampling):
        given.update(picture=picture, motion=np.stack(list(motion)), box=np.stack(list(box)))
        yield from [picture] * len(driver)

    monkeypatch.setattr(renderer, "animate", animate)
    target = portrait_of(drawn_face(), "face", renderer)
    own = renderer.encode(target.driving[None])[0]
    for relative in (False, True):
        flags = {"sampling": Sampling(), "relative": relative, "stopwatch": Stopwatch()}
        assert len(list(reenact(target, driver, renderer, seed=0, **flags))) == 40
        # Batches differ in their order of adding alone.
        latents = renderer.encode(crops)
        expected = own + latents - latents[0] if relative else latents
        np.testing.assert_allclose(given["motion"], expected, atol=1e-5)
        np.testing.assert_array_equal(given["box"], driver.box)
        np.testing.assert_array_equal(given["picture"], target.picture)
    # The head moves by half a pixel a frame, in boxes of about 1.19 * 80 pixels.
    assert abs((given["box"][32, 1] - given["box"][8, 1]) * 1.19 * 80 - 12) < 2
    assert np.abs(latents[3] - latents[9]).max() > 1e-3


def test_relative_motion_is_what_changes():
    draw = np.random.default_rng(0)
    own, motion = draw.normal(size=4), draw.normal(size=(5, 4))
    moved = np.stack(list(changes_added(own, iter(motion))))
    np.testing.assert_array_equal(moved[0], own)
    np.testing.assert_allclose(np.diff(moved, axis=0), np.diff(motion, axis=0))


def test_relative_motion_forgets_how_the_driver_begins(reenacted, tmp_path):
    closed, open_ = (
        write_media(tmp_path / f"{mouth}.mkv", [drawn_face(mouth=mouth)]) for mouth in (0.0, 1.0)
    )
    one, two = (frames_of(reenacted(film, film.stem)) for film in (closed, open_))
    assert len(one) == len(two) == 1 and np.abs(one - two).max() > 2
    flags = {"relative_motion": True}
    same = [reenacted(film, f"{film.stem}_r", **flags).read_bytes() for film in (closed, open_)]
    assert same[0] == same[1]


def test_frames_come_before_the_film_is_read(renderer_alone, monkeypatch):
    renderer = generate.open_renderer(str(renderer_alone))
    read = []

    def endless(path):
        while True:
            read.append(None)
            yield drawn_face()

    monkeypatch.setattr(driving, "read_video", endless)
    head_box = np.full((100_000, 3), 0.5, np.float32)  # over an hour
    frames = reenact(
        portrait_of(drawn_face(), "face", renderer),
        Driver(Path("film"), (120.0, 120.0, 200.0), head_box),
        renderer,
        seed=0,
        sampling=Sampling(),
        relative=False,
        stopwatch=Stopwatch(),
    )
    for count in range(1, 60):
        assert next(frames).shape == (32, 32, 3)
        # Never more than the window on the way, and the batch that filled it.
        assert count <= len(read) < count + WINDOW + batches.SIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory, portrait, renderer_alone):
    """Files that are in order, and files that are not."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copy(portrait, folder / "portrait.png")
    shutil.copytree(renderer_alone, folder / "weights")
    talking = talking_clip(16)
    write_media(folder / "film.mp4", talking)
    (folder / "text.mp4").write_text("not a video")
    recording(folder / "speech.wav", 0.4)
    (folder / "text.wav").write_text("not sound")
    write_media(folder / "wall.mp4", grey_frames([90] * 5))
    write_media(folder / "pair.mp4", [np.hstack([frame, frame]) for frame in talking[:5]])
    write_media(folder / "cut.mkv", talking[:8] + [255 - frame for frame in talking[:8]])
    elsewhere = drawn_face(200, 240, (100, 135), 80)
    write_media(folder / "jump.mkv", talking[:8] + [elsewhere] * 8)
    lost = [np.full_like(talking[0], (90, 120, 150))] * 8
    write_media(folder / "lost.mkv", talking[:8] + lost)
    (folder / "folder.mp4").mkdir()
    Image.fromarray(np.full((100, 100, 3), 128, np.uint8)).save(folder / "wall.png")
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"driving": None}, "give --audio=SPEECH to act from, or --driving=VIDEO to perform"),
        (
            {"driving": None, "audio": "speech.wav", "relative_motion": True},
            "--relative_motion: of what? give --driving=VIDEO too",
        ),
        (
            {"audio_guidance": 2.0},
            "--audio_guidance: --driving performs a video's motion and acts nothing",
        ),
        ({"driving": "none.mp4"}, "/none.mp4: no such file"),
        ({"driving": "folder.mp4"}, "/folder.mp4: no such file"),
        ({"driving": "text.mp4"}, "/text.mp4: not an audio or video file"),
        ({"driving": "speech.wav"}, "/speech.wav: no picture in this file; give a video"),
        ({"driving": "wall.mp4"}, "/wall.mp4: no face found; show"),
        ({"driving": "pair.mp4"}, "/pair.mp4: several faces in 1 of the 1 frames searched; crop"),
        ({"driving": "cut.mkv"}, "/cut.mkv: the scene changes at 0.32 s; cut"),
        ({"driving": "jump.mkv"}, "/jump.mkv: the face jumps by 0."),
        ({"driving": "lost.mkv"}, "/lost.mkv: no face in 8 of 16 frames; show"),
        ({"audio": "none.wav"}, "/none.wav: no such file"),
        ({"audio": "text.wav"}, "/text.wav: not an audio or video file"),
        ({"audio": "wall.mp4"}, "/wall.mp4: no audio track; give"),
        ({"image": "wall.png"}, "/wall.png: no face found; use"),
        ({"output": "film.mp4"}, "/film.mp4: this file is also read; name another"),
        ({"output": "nowhere/a.mp4"}, "/nowhere/a.mp4: the folder"),
        ({"checkpoint": "none"}, "/none: no such checkpoint folder; run in"),
        ({"checkpoint": "folder.mp4"}, "/renderer.safetensors: no such weights file"),
    ],
)
def test_bad_input_is_one_line(command, folder, flags, message):
    whole = {"image": "portrait.png", "driving": "film.mp4", "output": "out.mp4"}
    whole |= {"checkpoint": "weights"} | flags
    for name in ("image", "audio", "driving", "output", "checkpoint"):
        if whole.get(name) is not None:
            whole[name] = folder / whole[name]
    before = {path: path.stat().st_size for path in folder.rglob("*")}
    code, out, err = command(**whole)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert {path: path.stat().st_size for path in folder.rglob("*")} == before


def test_a_film_that_breaks_off_leaves_the_older_video(
    command, renderer_alone, portrait, tmp_path, monkeypatch
):
    film = write_media(tmp_path / "film.mkv", talking_clip(40))
    (tmp_path / "a.mp4").write_bytes(b"an older video")
    # Found whole, but when it is read again for its crops the second half is gone.
    monkeypatch.setattr(driving, "read_video", lambda path: iter(talking_clip(20)))
    flags = {"image": portrait, "driving": film, "checkpoint": renderer_alone}
    code, out, err = command(**flags, output=tmp_path / "a.mp4")
    assert (code, out) == (2, "")
    assert err == f"error: {film}: the picture breaks off when read again\n"
    assert {path.name for path in tmp_path.iterdir()} == {"film.mkv", "a.mp4"}
    assert (tmp_path / "a.mp4").read_bytes() == b"an older video"
