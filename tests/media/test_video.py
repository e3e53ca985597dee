"""Video is read by its clock, and what is written can be read back where it was put."""

import av
import cv2
import numpy as np
import pytest
from media.drawn import grey_frames, write_media
from media.heard import all_heard

from xactor_jax.errors import InputError
from xactor_jax.media.video import VideoWriter, read_video


def levels(path, **settings) -> np.ndarray:
    return np.array([frame.mean() for frame in read_video(path, **settings)])


def test_faster_video_is_thinned_by_time(tmp_path):
    shown = [4 * i for i in range(60)]
    path = write_media(tmp_path / "a.mkv", grey_frames(shown), [i / 30 for i in range(60)])
    read = levels(path)
    assert len(read) == 50
    # Ties between two source frames (every fifth frame) may go either way: within half a step of 4
    # plus the coding error.
    assert np.abs(read - 4 * 30 / 25 * np.arange(50)).max() <= 2 + 1.5


def test_irregular_times_are_obeyed(tmp_path):
    times = [0.0, 0.1, 0.13, 0.5, 0.55]
    path = write_media(tmp_path / "a.mkv", grey_frames([0, 50, 100, 150, 200]), times)
    read = levels(path)
    nearest = [int(np.argmin(np.abs(np.array(times) - k / 25))) for k in range(len(read))]
    assert np.abs(read - 50 * np.array(nearest)).max() < 3
    # The last frame lasts one frame of the nominal 25 a second.
    assert len(read) in (14, 15)


def test_a_plain_video_keeps_every_frame(tmp_path):
    shown = list(range(0, 240, 8))
    read = levels(write_media(tmp_path / "a.mp4", grey_frames(shown)))
    assert len(read) == len(shown)
    assert np.abs(read - shown).max() < 3


def test_phone_video_is_turned_upright(tmp_path):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24] = 255
    path = write_media(tmp_path / "a.mp4", [frame] * 3)
    turn_to_the_right(path)
    picture = next(read_video(path))
    assert picture.shape == (64, 48, 3)
    assert picture[:, 30:].mean() > 250 and picture[:, :18].mean() < 5
    reduced = next(read_video(path, longest_side=32))
    assert reduced.shape == (32, 24, 3)
    assert reduced[:, 15:].mean() > 250 and reduced[:, :9].mean() < 5


def turn_to_the_right(path):
    """Write a turn by 90 degrees into an MP4, as phones do."""
    one, none = b"\0\1\0\0", b"\0\0\0\0"
    level = one + none * 3 + one + none * 3 + b"\x40\0\0\0"
    # The matrix of a quarter turn to the right (ISO 14496-12, tkhd).
    turned = none + one + none + b"\xff\xff\0\0" + none * 4 + b"\x40\0\0\0"
    head, tail = path.read_bytes().split(b"tkhd", 1)
    path.write_bytes(head + b"tkhd" + tail.replace(level, turned, 1))


def test_large_pictures_are_reduced(tmp_path):
    path = write_media(tmp_path / "a.mp4", grey_frames([90], 96, 128))
    assert next(read_video(path, longest_side=64)).shape == (48, 64, 3)


@pytest.mark.parametrize("longest_side", [64, 100])  # a half, and no whole part
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p", "yuv420p10le"])
def test_reduced_pictures_are_averages(tmp_path, pix_fmt, longest_side):
    rows, columns = np.mgrid[:96, :128]
    smooth = np.stack([rows + 50, columns, 200 - rows / 2 - columns / 2], axis=-1)
    path = write_media(tmp_path / "a.mkv", [smooth.astype(np.uint8)], pix_fmt=pix_fmt)
    whole, small = (next(read_video(path, side)).astype(float) for side in (128, longest_side))
    expected = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    # Halved colours lie a quarter of a pixel aside; one level of them is nearly two of blue.
    assert np.abs(small - expected).max() <= 6 and np.abs(small - expected).mean() <= 1.5


def test_unusable_files_are_named(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(bytes(range(256)) * 40)
    sound = write_media(tmp_path / "sound.wav", audio=np.zeros(800))
    for path, message in (
        (tmp_path / "none.mp4", "no such file"),
        (broken, "not an audio or video file"),
        (sound, "no picture"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            next(read_video(path))
        assert str(caught.value).startswith(str(path))


def write(path, count: int, audio=None, size=(48, 64)) -> None:
    with VideoWriter(path, size, audio=audio) as video:
        for t in range(count):
            video.push(np.full((*size, 3), (200, 4 * t % 256, 30), np.uint8))


def click(rate: int, seconds: float, at: float, channels: int) -> np.ndarray:
    """A 1 kHz burst of 20 ms whose middle is at `at`."""
    time = np.arange(round(seconds * rate)) / rate - at
    burst = 0.8 * np.cos(2 * np.pi * 1000 * time) * np.exp(-((time / 0.005) ** 2))
    mono = burst.astype(np.float32)
    return np.stack([mono, 0.5 * mono], axis=1)[:, :channels]


@pytest.mark.parametrize(
    ("rate", "channels"),
    [(8000, 1), (16_000, 1), (44_100, 2), (48_000, 1), (22_000, 2), (22_000, 1)],
)
def test_frames_and_sound_come_back_in_place(tmp_path, rate, channels):
    path = tmp_path / "out.mp4"
    write(path, 50, ([click(rate, 2.0, 1.25, channels)], rate))
    frames = list(read_video(path))
    assert len(frames) == 50
    for t in (0, 20, 49):
        # Quality 18 and the rounding of YUV keep flat colours within 4 levels.
        assert np.abs(frames[t].astype(int) - (200, 4 * t, 30)).max() <= 4
    sound, read_rate = all_heard(path)
    assert read_rate == (48_000 if rate == 22_000 else rate)
    assert sound.shape[1] == channels
    # At least as long as it was; AAC ends on a whole block of 1024 (and one of delay).
    assert 0 <= len(sound) / read_rate - 2.0 <= 2 * 1024 / read_rate
    envelope = np.convolve(sound[:, 0] ** 2, np.ones(read_rate // 200), "same")
    # The middle of the burst to 2 ms: the codec smears it, but does not move it.
    assert abs(envelope.argmax() / read_rate - 1.25) < 0.002


def test_sound_and_picture_lie_side_by_side_in_the_file(tmp_path):
    path = tmp_path / "out.mp4"
    write(path, 150, ([click(16_000, 6.0, 3.0, 1)], 16_000))
    clock = {"audio": 0.0, "video": 0.0}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.dts is not None:
                clock[packet.stream.type] = float(packet.dts * packet.time_base)
                # A player reads the file in order: neither may run ahead by more than a moment.
                assert abs(clock["audio"] - clock["video"]) < 1.2


def test_sound_is_asked_for_as_the_frames_come(tmp_path):
    asked = []

    def blocks():
        for n in range(100):
            asked.append(n)
            yield np.zeros((640, 1), np.float32)  # a frame's

    with VideoWriter(tmp_path / "out.mp4", 64, audio=(blocks(), 16_000)) as video:
        for count in range(1, 11):
            video.push(np.zeros((64, 64, 3), np.uint8))
            assert count <= len(asked) <= count + 2  # the codec's blocks are longer
    assert len(asked) == 100
    assert len(all_heard(tmp_path / "out.mp4")[0]) >= 64_000


@pytest.mark.parametrize("good", [0, 10, 49])
def test_sound_that_breaks_off_leaves_no_file(tmp_path, good):
    def blocks():
        yield from [np.zeros((640, 1), np.float32)] * good
        raise InputError("speech.wav: the sound cannot be decoded")

    with pytest.raises(InputError, match=r"speech\.wav"):
        write(tmp_path / "out.mp4", 25, (blocks(), 16_000))
    assert not list(tmp_path.iterdir())


def test_the_same_content_is_the_same_file(tmp_path):
    sound, rate = click(16_000, 1.0, 0.5, 1), 16_000
    for name, cuts in (("a", []), ("b", []), ("c", [1, 1000, 1025, 9000])):  # in pieces, too
        write(tmp_path / f"{name}.mp4", 25, (np.split(sound, cuts), rate))
    one, *others = [(tmp_path / f"{name}.mp4").read_bytes() for name in "abc"]
    assert others == [one, one]


def test_what_was_in_memory_does_not_change_the_file(tmp_path):
    """Encoders may read what they never wrote; small smooth pictures that drift show it at once."""
    draw = np.random.default_rng(0)
    drift = 8 * draw.normal(size=(30, 12, 12, 3)).cumsum(axis=0)
    rough = np.clip(128 + drift + 60 * draw.normal(size=(1, 12, 12, 3)), 0, 255).astype(np.uint8)
    frames = [cv2.resize(frame, (96, 96), interpolation=cv2.INTER_CUBIC) for frame in rough]
    files, full = set(), []
    for _ in range(20):
        with VideoWriter(tmp_path / "a.mp4", 96) as video:
            for frame in frames:
                video.push(frame)
                # The memory of the last ones is given back, full of something.
                sizes, value = draw.integers(10, 300_000, size=3), draw.integers(256)
                full[:] = [np.full(size, value, np.uint8) for size in sizes]
        files.add((tmp_path / "a.mp4").read_bytes())
    assert len(files) == 1


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "out.mp4"
    write(path, 5)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), VideoWriter(path, (48, 64)) as video:
        video.push(np.zeros((48, 64, 3), np.uint8))
        raise RuntimeError("stop")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        VideoWriter(tmp_path / "nowhere" / "out.mp4", 64)
    with pytest.raises(InputError, match="this is a folder"):
        VideoWriter(tmp_path, 64)
    with pytest.raises(ValueError, match="even"):
        VideoWriter(tmp_path / "out.mp4", (47, 64))
    with pytest.raises(ValueError, match="shape"), VideoWriter(tmp_path / "o.mp4", 64) as video:
        video.push(np.zeros((32, 64, 3), np.uint8))
    assert not list(tmp_path.iterdir())
