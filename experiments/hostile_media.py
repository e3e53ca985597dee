"""Small files that ask for too much, or pretend to be what they are not."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

HOUR = 3600


def sound(seconds: float, rate: int = 16_000) -> np.ndarray:
    """A tone."""
    return 0.3 * np.sin(np.arange(round(seconds * rate)) * 0.1).astype(np.float32)


def picture(n: int, height: int, width: int) -> np.ndarray:
    """A moving gradient."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x * 3 + n * 5) % 256, (y * 2) % 256, (x + y) % 256], -1).astype(np.uint8)


def write_clip(
    path: Path,
    codecs: tuple[str | None, str | None] = ("libx264", "aac"),
    times: list[float] | None = None,
    seconds: float = 1.2,
    size: tuple[int, int] = (48, 64),
    rate: int = 16_000,
    late: float = 0.0,
    layout: str = "mono",
) -> Path:
    """A short clip of a gradient and a tone, its frames shown at `times`, its sound `late` s."""
    times = [n / 25 for n in range(round(seconds * 25))] if times is None else times
    with av.open(str(path), "w") as container:
        shown, heard = _streams(container, codecs, size, rate, layout)
        if shown:
            for n, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(picture(n, *size), format="rgb24")
                frame.time_base = shown.codec_context.time_base
                frame.pts = round(time / frame.time_base)
                container.mux(shown.encode(frame))
            container.mux(shown.encode(None))
        if heard:
            _write_sound(container, heard, sound(seconds, rate), round(late * rate))
    return path


def _streams(
    container: Any,
    codecs: tuple[str | None, str | None],
    size: tuple[int, int],
    rate: int,
    layout: str,
) -> tuple[Any, Any]:
    video, audio = codecs
    shown = container.add_stream(video, rate=25) if video else None
    if shown:
        shown.height, shown.width = size
        shown.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
        every = Fraction(1, 25) if video == "mpeg1video" else Fraction(1, 1000)
        shown.codec_context.time_base = every
    return shown, container.add_stream(audio, rate=rate, layout=layout) if audio else None


def _write_sound(container: Any, stream: Any, samples: np.ndarray, first: int) -> None:
    rate, context = stream.rate, stream.codec_context
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.rate, frame.time_base = rate, Fraction(1, rate)
    resampler = av.AudioResampler(context.format.name, stream.layout.name, rate)
    fifo = av.AudioFifo()
    for part in resampler.resample(frame):
        part.pts = None
        fifo.write(part)
    while block := fifo.read(context.frame_size or 1024, partial=True):
        block.pts, block.time_base = first, Fraction(1, rate)
        first += block.samples
        container.mux(stream.encode(block))
    container.mux(stream.encode(None))


def ordinary(folder: Path) -> list[Path]:
    """Small sound clips of many containers and codecs: what mutations begin with."""
    made = []
    for name, codecs, rate in (
        ("h264.mp4", ("libx264", "aac"), 16_000),
        ("h264.mkv", ("libx264", "pcm_s16le"), 16_000),
        ("vp9.webm", ("libvpx-vp9", "libopus"), 48_000),
        ("mjpeg.avi", ("mjpeg", "pcm_s16le"), 22_050),
        ("mpeg1.mpg", ("mpeg1video", "mp2"), 44_100),
        ("mpeg4.mov", ("mpeg4", "aac"), 44_100),
        ("mpeg4.mp4", ("mpeg4", "flac"), 16_000),
        ("transport.ts", ("libx264", "mp2"), 32_000),
        ("flash.flv", ("flv1", "pcm_s16le"), 44_100),
        ("sound.wav", (None, "pcm_s16le"), 16_000),
        ("sound.flac", (None, "flac"), 16_000),
        ("sound.ogg", (None, "libopus"), 48_000),
        ("sound.mp3", (None, "libmp3lame"), 44_100),
    ):
        try:
            made.append(write_clip(folder / name, codecs, seconds=0.6, rate=rate))
        except (av.FFmpegError, ValueError, NotImplementedError):
            (folder / name).unlink(missing_ok=True)  # this build of FFmpeg cannot write it
    return made


def hours_of_one_frame(folder: Path) -> Path:
    """A picture that is followed by the next four hours later."""
    return write_clip(folder / "hours.mkv", ("mjpeg", "pcm_s16le"), [0, 0.04, 4 * HOUR])


def claims_hours(folder: Path) -> Path:
    """An MP4 whose last frame is said to last for hours."""
    path = write_clip(folder / "claims.mp4", ("libx264", "aac"), seconds=1.2)
    data = bytearray(path.read_bytes())
    at = data.find(b"stts")
    entries = struct.unpack(">I", data[at + 8 : at + 12])[0]
    struct.pack_into(">I", data, at + 12 + 8 * entries - 4, 2**31 - 1)
    for name in (b"mvhd", b"mdhd"):
        place = data.find(name)
        struct.pack_into(">I", data, place + 20, 2**31 - 1)
    path.write_bytes(data)
    return path


def sound_hours_late(folder: Path) -> Path:
    """Sound that begins after six hours of silence."""
    return write_clip(folder / "late.mkv", ("mjpeg", "pcm_s16le"), late=6 * HOUR)


def spread_out(folder: Path) -> Path:
    """A frame every minute and a hundredth second of sound every five, for two hours."""
    path = folder / "spread.mkv"
    with av.open(str(path), "w") as container:
        shown, heard = _streams(container, ("mjpeg", "pcm_s16le"), (48, 64), 16_000, "mono")
        for n in range(0, 2 * HOUR, 59):
            frame = av.VideoFrame.from_ndarray(picture(n, 48, 64), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 1)
            container.mux(shown.encode(frame))
            if n % (5 * 59) == 0:
                block = av.AudioFrame.from_ndarray(np.ones((1, 160), np.int16), "s16", "mono")
                block.rate, block.pts, block.time_base = 16_000, 16_000 * n, Fraction(1, 16_000)
                container.mux(heard.encode(block))
        container.mux(shown.encode(None))
    return path


def one_sample_a_second(folder: Path) -> Path:
    """A WAV file at 1 Hz: a megabyte of it would be 16000 times as much at 16 kHz."""
    body = np.zeros(500_000, np.int16).tobytes()
    header = b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, 1, 2, 2, 16) + b"data"
    path = folder / "slow.wav"
    path.write_bytes(header + struct.pack("<I", len(body)) + body)
    return path


def silence_bomb(folder: Path, packets: int = 6_000) -> Path:
    """Eight channels of silence at 192 kHz: 230 kilobytes that unfold to gigabytes."""
    path = folder / "silence.mkv"
    with av.open(str(path), "w") as container:
        shown: Any = container.add_stream("mjpeg", rate=25)
        shown.height, shown.width, shown.pix_fmt = 48, 64, "yuvj420p"
        heard: Any = container.add_stream("flac", rate=192_000, layout="7.1")
        for n in range(30):
            frame = av.VideoFrame.from_ndarray(picture(n, 48, 64), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(shown.encode(frame))
        length = heard.codec_context.frame_size or 4608
        block = np.zeros((1, 8 * length), np.int16)
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="7.1")
        frame.rate, frame.pts, frame.time_base = 192_000, 0, Fraction(1, 192_000)
        data = bytes((heard.encode(frame) or heard.encode(None))[0])
        for n in range(packets):
            packet = av.Packet(data)
            packet.stream, packet.time_base = heard, Fraction(1, 192_000)
            packet.pts = packet.dts = n * length
            packet.duration = length
            container.mux(packet)
    return path


def huge_mjpeg(folder: Path) -> Path:
    """A film whose JPEGs say that they are 65 500 pixels wide and high."""
    path = write_clip(folder / "huge.avi", ("mjpeg", "pcm_s16le"))
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"\xff\xc0\x00\x11\x08", at)) >= 0:
        struct.pack_into(">HH", data, at + 5, 65_500, 65_500)
        at += 1
    path.write_bytes(data)
    return path


def huge_y4m(folder: Path) -> Path:
    """Raw film that says it has 30 000 x 30 000 pixels."""
    path = folder / "huge.y4m"
    path.write_bytes(b"YUV4MPEG2 W30000 H30000 F25:1 Ip A1:1 C420\nFRAME\n" + bytes(100_000))
    return path


def large_frames(folder: Path, name: str = "large.mkv") -> Path:
    """Frames of 9000 x 9000 pixels of one colour: kilobytes that unfold to gigabytes."""
    path = folder / name
    data = cv2.imencode(".jpg", np.full((9_000, 9_000), 90, np.uint8))[1].tobytes()
    with av.open(str(path), "w") as container:
        shown: Any = container.add_stream("mjpeg", rate=25)
        shown.height, shown.width, shown.pix_fmt = 9_000, 9_000, "yuvj420p"
        heard: Any = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for n in range(3):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = shown, n, n
            packet.time_base = Fraction(1, 25)
            container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1_920), np.int16), "s16", "mono")
        frame.rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(heard.encode(frame))
        container.mux(heard.encode(None))
    return path


def stretched_pixels(folder: Path) -> Path:
    """Pixels that are said to be a million times as wide as they are high."""
    path = folder / "stretched.mkv"
    with av.open(str(path), "w") as container:
        shown: Any = container.add_stream("mjpeg", rate=25)
        shown.height, shown.width, shown.pix_fmt = 48, 64, "yuvj420p"
        shown.codec_context.sample_aspect_ratio = Fraction(1_000_000, 1)
        heard: Any = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for n in range(30):
            frame = av.VideoFrame.from_ndarray(picture(n, 48, 64), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(shown.encode(frame))
        block = np.zeros((1, 16_000), np.int16)
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(heard.encode(frame))
        container.mux(heard.encode(None))
    return path


def upside_down(folder: Path) -> Path:
    """Raw pictures whose last row comes first: FFmpeg gives their lines a negative length."""
    path = folder / "upside_down.mkv"
    half = np.zeros((48, 64, 3), np.uint8)
    half[:24] = 255
    with av.open(str(path), "w") as container:
        shown: Any = container.add_stream("rawvideo", rate=25)
        shown.height, shown.width, shown.pix_fmt = 48, 64, "yuv420p"
        shown.codec_context.extradata = b"BottomUp\0"
        frame = av.VideoFrame.from_ndarray(half, format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(shown.encode(frame))
        container.mux(shown.encode(None))
    return path


def png_bomb(folder: Path) -> Path:
    """A PNG of 50 000 x 50 000 zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(50_001)) for _ in range(2_000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    path = folder / "bomb.png"
    signature = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(
        signature + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


def archives(folder: Path) -> list[Path]:
    """Archives that call themselves films; their members climb out of the folder, or unfold."""
    member, zeros = "../../outside.mp4", bytes(20_000_000)
    with zipfile.ZipFile(folder / "zip.mp4", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(member, zeros)
    with tarfile.open(folder / "tar.mov", "w:gz") as file:
        found = tarfile.TarInfo(member)
        found.size = len(zeros)
        file.addfile(found, io.BytesIO(zeros))
    (folder / "gzip.mkv").write_bytes(gzip.compress(zeros))
    return [folder / name for name in ("zip.mp4", "tar.mov", "gzip.mkv")]


def playlists(folder: Path) -> list[Path]:
    """Texts that make FFmpeg open other files and addresses."""
    (folder / "inner").mkdir(exist_ok=True)
    other = write_clip(folder / "inner" / "other.mp4")
    texts = {
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ninner/other.mp4\n"
        "#EXT-X-ENDLIST\n",
        "net.mp4": "#EXTM3U\n#EXTINF:9,\nhttp://192.0.2.1/film.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile inner/other.mp4\n",
        "session.mov": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash.mkv": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
        'type="static"><Period><AdaptationSet><Representation><BaseURL>inner/other.mp4</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    assert other.is_file()
    return [folder / name for name in texts]


def names(folder: Path) -> list[Path]:
    """An ordinary clip under names that mean something to FFmpeg, shells and tables."""
    data = write_clip(folder / "plain.mp4").read_bytes()
    found = []
    for name in (
        b"concat:plain.mp4|plain.mp4",
        b"subfile,,start,0,end,9,,:plain.mp4",
        b"http:plain.mp4",
        b"-i.mp4",
        b'quote"comma,line\nbreak.mp4',
        b"%03d.mp4",
        b"\xff\xfe.mp4",
        b"..mp4",
        b"=cmd|calc.mp4",
        b"a" * 250 + b".mp4",
    ):
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))
        path.write_bytes(data)
        found.append(path)
    return found


ONE_FILE: tuple[Callable[[Path], Path], ...] = (
    hours_of_one_frame,
    claims_hours,
    sound_hours_late,
    spread_out,
    one_sample_a_second,
    silence_bomb,
    huge_mjpeg,
    huge_y4m,
    large_frames,
    stretched_pixels,
    upside_down,
    png_bomb,
)


def hostile(folder: Path) -> list[Path]:
    """All of the above."""
    several = [*archives(folder), *playlists(folder), *names(folder)]
    return [*(make(folder) for make in ONE_FILE), *several]
