"""What a file holds is read without decoding; what cannot be used is told before."""

from fractions import Fraction

import av
import numpy as np
import pytest
from media.drawn import grey_frames, write_media

from xactor_jax.errors import InputError
from xactor_jax.media.audio import read_mono_16k
from xactor_jax.media.video import read_video
from xactor_jax.preparation.probe import probe, refusal
from xactor_jax.preparation.settings import Probe

SECOND = np.zeros(16_000, np.float32)


def write_tracks(path, rates=(16_000,), default=0, transfer=2, pixel_format="yuv420p"):
    """A second of flat pictures with several tracks of sound, of which one is the default."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, pixel_format
        video.codec_context.color_trc = transfer
        tracks = [container.add_stream("pcm_s16le", rate=rate, layout="mono") for rate in rates]
        for i, track in enumerate(tracks):
            track.disposition = av.stream.Disposition.default if i == default else 0
        for image in grey_frames([100] * 25):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for track, rate in zip(tracks, rates, strict=True):
            block = np.full((1, rate), rate // 10, np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def test_a_plain_file(tmp_path):
    found = probe(write_media(tmp_path / "a.mkv", grey_frames([9] * 25), audio=SECOND))
    assert (found.height, found.width) == (48, 64)
    # Matroska's clock ticks in milliseconds.
    assert abs(found.picture_seconds - 1) < 0.01
    assert abs(found.sound_seconds - 1) < 0.01 and found.track == 0
    assert refusal(found, Probe()) == ""


def test_the_default_track_is_used(tmp_path):
    found = probe(write_tracks(tmp_path / "a.mkv", rates=(8000, 16_000, 22_050), default=1))
    assert found.track == 1
    # Each track holds its own level.
    sound = read_mono_16k(tmp_path / "a.mkv", found.track)
    assert abs(sound.mean() * 32768 - 1600) < 10


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv422p10le", "yuvj420p", "gray"])
def test_odd_pixel_formats_are_seen_as_they_are(tmp_path, pixels):
    path = write_tracks(tmp_path / "a.mkv", pixel_format=pixels)
    assert refusal(probe(path), Probe()) == ""
    levels = [picture.mean() for picture in read_video(path)]
    # All pictures are of level 100; coding and a narrower range of levels err by a few.
    assert len(levels) == 25 and np.abs(np.array(levels) - 100).max() <= 4


@pytest.mark.parametrize(("transfer", "refused"), [(16, True), (18, False), (1, False)])
def test_high_dynamic_range(tmp_path, transfer, refused):
    found = probe(write_tracks(tmp_path / "a.mkv", transfer=transfer, pixel_format="yuv420p10le"))
    assert ("high dynamic range" in refusal(found, Probe())) == refused
    assert refusal(found, Probe(hdr=False)) == ""


def test_large_pictures_are_refused(tmp_path):
    found = probe(write_tracks(tmp_path / "a.mkv"))
    reason = "pictures of 64 x 48 pixels; reduce them first"
    assert refusal(found, Probe(largest_pixels=64 * 48)) == ""
    assert refusal(found, Probe(largest_pixels=64 * 48 - 1)) == reason


def test_sound_that_breaks_off_is_refused(tmp_path):
    found = probe(write_media(tmp_path / "a.mkv", grey_frames([9] * 100), audio=SECOND))
    assert refusal(found, Probe()).startswith("4.0 s of picture but 1.0 s of sound")


def test_files_without_picture_or_sound_are_told(tmp_path):
    write_media(tmp_path / "voice.wav", audio=SECOND)
    write_media(tmp_path / "mute.mp4", grey_frames([9] * 5))
    (tmp_path / "text.mp4").write_text("no film")
    for name, message in (
        ("voice.wav", "no picture"),
        ("mute.mp4", "no audio track"),
        ("text.mp4", "not an audio or video file"),
        ("none", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            probe(tmp_path / name)
