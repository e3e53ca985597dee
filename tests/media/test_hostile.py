"""Files that ask for too much, or are not what they say: one clear line, soon and in little memory.

Each test makes its own file; experiments/fuzz_media.py found most of what they guard against.
"""

import errno
import os
import random
import re
import tracemalloc

import av
import cv2
import numpy as np
import pytest
from media.drawn import settings_for_drawn, talking_clip, write_media
from media.heard import all_heard
from PIL import Image

from experiments import hostile_media
from experiments.fuzz_media import decode, mutated
from xactor_jax import prepare
from xactor_jax.errors import InputError, OutOfMemory
from xactor_jax.media.audio import has_sound, open_media, read_mono_16k
from xactor_jax.media.image import read_image
from xactor_jax.media.video import read_video
from xactor_jax.preparation.probe import probe
from xactor_jax.preparation.probe import refusal as unusable
from xactor_jax.preparation.settings import Probe

# What a frame, a second of sound and the libraries need; the files claim gigabytes.
MOST_BYTES = 300e6


def refusal(work, path):
    """The one line in which `work` refuses a file, and that it held little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as error:
            work(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def watch(path):
    return [picture.shape for picture in read_video(path)]


def test_a_picture_that_stands_still_for_hours_is_refused(tmp_path):
    path = hostile_media.hours_of_one_frame(tmp_path)
    assert refusal(watch, path).startswith("the picture stands still for 14400 s from 0.08 s on")


def test_pictures_stored_upside_down_are_read_within_their_memory(tmp_path):
    path = hostile_media.upside_down(tmp_path)
    whole = next(read_video(path))
    assert whole[:24].mean() < 5 and whole[-24:].mean() > 250
    small = next(read_video(path, longest_side=32))
    np.testing.assert_allclose(small, cv2.resize(whole, (32, 24), interpolation=cv2.INTER_AREA))


def test_a_frame_that_claims_hours_is_shown_for_one(tmp_path):
    # Nothing follows its first frame in time, so that is all there is.
    assert watch(hostile_media.claims_hours(tmp_path)) == [(48, 64, 3)]


def test_a_frame_rate_of_one_an_hour_is_shown_for_one_frame(tmp_path):
    path = tmp_path / "a.y4m"
    path.write_bytes(b"YUV4MPEG2 W64 H48 F1:3600 C420\nFRAME\n" + bytes(64 * 48 * 3 // 2))
    assert watch(path) == [(48, 64, 3)]


def test_sound_that_begins_hours_late_is_refused(tmp_path):
    path = hostile_media.sound_hours_late(tmp_path)
    assert refusal(read_mono_16k, path).startswith("no sound for 21600 s from 0.00 s on")


def test_hours_of_a_few_pictures_and_sounds_are_refused(tmp_path):
    """Each gap is one that a film may have."""
    path = hostile_media.spread_out(tmp_path)
    assert path.stat().st_size < 500_000
    assert refusal(read_mono_16k, path).startswith("only 0.02 s of sound in 590 s")
    assert refusal(watch, path).startswith("only 2 pictures in 118 s")


def test_sound_of_one_sample_a_second_is_refused(tmp_path):
    path = hostile_media.one_sample_a_second(tmp_path)
    assert refusal(read_mono_16k, path).startswith("sound at 1 Hz")


def test_long_silence_of_many_channels_is_read_in_little_memory(tmp_path):
    path = hostile_media.silence_bomb(tmp_path, packets=1_000)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        heard = read_mono_16k(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    # In the file there are eight channels, of twelve times as many samples.
    assert 8 * 12 * heard.nbytes > 1.5 * MOST_BYTES and not heard.any()


@pytest.mark.parametrize("make", [hostile_media.huge_mjpeg, hostile_media.huge_y4m])
def test_huge_pictures_are_refused(make, tmp_path):
    reasons = r"pictures of \d+ x \d+|the picture cannot be|not an audio or video file"
    assert re.match(reasons, refusal(watch, make(tmp_path)))


@pytest.mark.parametrize("container", ["mkv", "avi", "mov"])
def test_pictures_of_which_the_header_says_that_they_are_huge_are_to_be_reduced(
    container, tmp_path
):
    path = hostile_media.large_frames(tmp_path, f"large.{container}")
    assert refusal(watch, path) == "pictures of 9000 x 9000; reduce them"
    reason = unusable(probe(path), Probe())
    assert reason == "pictures of 9000 x 9000 pixels; reduce them first"


def test_stretched_pixels_make_no_large_picture(tmp_path):
    height, width, _ = watch(hostile_media.stretched_pixels(tmp_path))[0]
    assert max(height, width) <= 1920


def test_eight_channels_are_read(tmp_path):
    path = hostile_media.write_clip(tmp_path / "a.flac", (None, "flac"), layout="7.1")
    samples, rate = all_heard(path)
    assert samples.shape == (round(1.2 * 16_000), 8) and rate == 16_000
    # A mono tone goes to the front centre, which is third.
    loud = np.abs(samples).max(axis=0) > 0.1
    assert loud.tolist() == [False, False, True, False, False, False, False, False]


@pytest.mark.parametrize(
    ("known", "read", "reason"),
    [
        (b"V_MPEG4/ISO/AVC", watch, "a picture in a form that FFmpeg does not know"),
        (b"A_PCM/INT/LIT", read_mono_16k, "sound in a form that FFmpeg does not know"),
        (b"V_MPEG4/ISO/AVC", probe, "a form that FFmpeg does not know"),
        (b"A_PCM/INT/LIT", probe, "a form that FFmpeg does not know"),
    ],
)
def test_unknown_codecs_are_told(known, read, reason, tmp_path):
    path = hostile_media.write_clip(tmp_path / "a.mkv", ("libx264", "pcm_s16le"))
    data = path.read_bytes()
    assert known in data
    path.write_bytes(data.replace(known, known[:2] + b"NO" + known[4:]))
    assert refusal(read, path).startswith(reason)
    assert has_sound(path)


def test_sound_that_changes_its_rate_is_told(tmp_path):
    parts = [
        hostile_media.write_clip(tmp_path / f"{rate}.mp3", (None, "libmp3lame"), rate=rate)
        for rate in (44_100, 22_050)
    ]
    path = tmp_path / "both.mp3"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert re.match(r"the sound (changes its format|cannot be)", refusal(read_mono_16k, path))


class Short:
    """An open file whose packets and frames are more than there is memory for."""

    def __init__(self, container):
        self._container = container

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._container.close()

    def __getattr__(self, name):
        return getattr(self._container, name)

    def demux(self):
        raise av.error.MemoryError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    def decode(self, stream):
        self.demux()


@pytest.mark.parametrize("read", [watch, read_mono_16k, probe])
def test_a_lack_of_memory_is_not_held_against_a_file(read, tmp_path, monkeypatch):
    path = hostile_media.write_clip(tmp_path / "a.mkv")
    read(path)
    opened = av.open

    def short(*args, **named):
        return Short(opened(*args, **named))

    def shorter(*args, **named):
        raise av.error.MemoryError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    for way in (short, shorter):
        monkeypatch.setattr(av, "open", way)
        with pytest.raises(OutOfMemory, match=r"a\.mkv: not enough memory to read it"):
            read(path)


def test_archives_are_no_films(tmp_path):
    for path in hostile_media.archives(tmp_path):
        assert refusal(open_media, path).startswith("not an audio or video file")
    assert not (tmp_path.parent / "outside.mp4").exists()


def test_playlists_are_not_followed(tmp_path):
    for path in hostile_media.playlists(tmp_path):
        assert refusal(open_media, path).startswith("not an audio or video file")


def test_a_name_is_a_name(tmp_path, monkeypatch):
    paths = hostile_media.names(tmp_path)
    monkeypatch.chdir(tmp_path)  # as relative paths they would be protocols
    for path in paths:
        assert len(watch(path.relative_to(tmp_path))) == 30, path


def test_names_that_are_no_text_are_listed(tmp_path):
    settings = settings_for_drawn(64, "duplicates.enabled=False")
    inputs = tmp_path / "in"
    inputs.mkdir()
    plain = write_media(
        inputs / "good.mkv",
        talking_clip(30),
        audio=0.2 * np.sin(np.arange(19_200, dtype=np.float32) / 10),
    )
    data = plain.read_bytes()
    for name in (b"\xff\xfe.mkv", b"two\nlines.mkv"):
        with open(str(inputs).encode() + b"/" + name, "wb") as file:
            file.write(data)
    assert prepare.prepare(inputs, tmp_path / "out", settings) == (2, 1)
    rows = (tmp_path / "out" / "rejected.csv").read_text()
    assert "its name is not UTF-8; rename it" in rows
    assert prepare.prepare(inputs, tmp_path / "out", settings) == (2, 1)


def test_pictures_that_unfold_to_gigabytes_are_refused(tmp_path):
    path = hostile_media.png_bomb(tmp_path)
    assert re.match(r"50000 x 50000|not a picture", refusal(read_image, path))


def test_postscript_is_not_run(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    assert refusal(read_image, tmp_path / "a.png").startswith("not a picture")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_pictures_are_refused(share, tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert refusal(read_image, path).startswith("not a picture")


def test_what_is_cut_out_of_a_film_is_what_is_there(tmp_path):
    path = write_media(tmp_path / "a.mkv", talking_clip(30, drift=1))
    every = list(read_video(path))
    part = list(read_video(path, start=0.4, end=0.8))
    assert len(part) == 10
    np.testing.assert_array_equal(part, every[10:20])
    with pytest.raises(InputError, match="no picture"):
        list(read_video(path, start=5.0))


def test_the_fuzzer_starts_from_files_that_can_be_read(tmp_path):
    for path in hostile_media.ordinary(tmp_path):
        if path.suffix in (".wav", ".flac", ".ogg", ".mp3"):
            with pytest.raises(InputError, match="no picture"):
                decode(path, whole=False)
        else:
            decode(path, whole=False)
    one, other = (mutated(b"0123456789" * 20, b"", random.Random(5)) for _ in range(2))
    assert one == other != b"0123456789" * 20
