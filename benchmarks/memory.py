"""Memory that preparation needs, against the length of the film.

OMP_NUM_THREADS=1 python -m benchmarks.memory --seconds 20 60 180 --height=2160

Films of `demo/portrait.png`, moved a little and 16:9 at the height that is given, with the voice of
`demo/speech.wav` over and over, are made and prepared, each in a process of its own. What a process
holds at most is told with what it held before it opened the film. `--hours` does the same for
reading sound alone. A film is one encoded second over and over, so that hours are soon written.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from xactor_jax.command import Parser, run
from xactor_jax.data.shards import FRAME_RATE, SAMPLE_RATE
from xactor_jax.media.audio import read_mono_16k
from xactor_jax.media.image import read_image
from xactor_jax.preparation.footage import Footage
from xactor_jax.preparation.settings import Settings, changed
from xactor_jax.preparation.staging import Staging
from xactor_jax.preparation.workers import stage

_DEMO = Path(__file__).parents[1] / "demo"
# A picture that only moves is no talker, and one film's clips are copies of each other.
_OPEN = ("quality.static=0", "quality.blur=0", "sync.unsure=False")


def pictures(height: int) -> list[av.VideoFrame]:
    """A second of the portrait, going to and fro in front of a gray wall."""
    portrait = read_image(_DEMO / "portrait.png")
    portrait = cv2.resize(portrait, (height // 2, height // 2), interpolation=cv2.INTER_AREA)
    frames = []
    for place in range(FRAME_RATE):
        shift = round(0.01 * height * np.sin(2 * np.pi * place / FRAME_RATE))
        picture = np.full((height, round(height / 18) * 32, 3), 120, np.uint8)
        top, left = height // 4, picture.shape[1] // 3 + shift
        picture[top : top + len(portrait), left : left + len(portrait)] = portrait
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = place, Fraction(1, FRAME_RATE)
        frames.append(frame)
    return frames


def write_film(path: Path, seconds: int, height: int) -> Path:
    """H.264 and PCM, or PCM alone where the height is 0."""
    voice = np.round(read_mono_16k(_DEMO / "speech.wav") * 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        coded: list[av.Packet] = []
        if height:
            options = {"preset": "ultrafast", "crf": "30"}
            video = container.add_stream("libx264", rate=FRAME_RATE, options=options)
            video.height, video.width, video.pix_fmt = height, round(height / 18) * 32, "yuv420p"
            for frame in pictures(height):
                coded.extend(video.encode(frame))
            coded.extend(video.encode())
        sound = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for second in range(seconds):
            start = second * SAMPLE_RATE
            heard = voice.take(np.arange(start, start + SAMPLE_RATE), mode="wrap")
            block = av.AudioFrame.from_ndarray(heard[None], format="s16", layout="mono")
            block.rate, block.pts, block.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(sound.encode(block))
            for place, packet in enumerate(coded):
                again = av.Packet(bytes(packet))
                again.pts = again.dts = second * FRAME_RATE + place
                again.time_base, again.stream = Fraction(1, FRAME_RATE), packet.stream
                again.is_keyframe = packet.is_keyframe
                container.mux(again)
        container.mux(sound.encode(None))
    return path


def megabytes() -> float:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prepared(path: Path, settings: Settings) -> dict[str, float]:
    """Prepare a film as the command does, or read its sound alone, and tell the memory."""
    cv2.setNumThreads(1)
    before = megabytes()
    if path.suffix == ".mka":
        samples = len(read_mono_16k(path))
        return {"samples": samples, "before, MB": before, "most, MB": megabytes()}
    staging, footage = Staging(path.parent / path.stem, settings), Footage(path.parent, path.name)
    staging.folder.mkdir()
    stage(footage, staging)
    outcome = staging.outcome(footage) or {"clips": []}
    return {"clips": len(outcome["clips"]), "before, MB": before, "most, MB": megabytes()}


def main() -> None:
    parser = Parser("Memory that preparation needs, against the length of the film.")
    parser.add_argument("--seconds", type=int, nargs="+", default=[20, 60, 180])
    parser.add_argument("--hours", type=int, nargs="*", default=[], help="of sound alone")
    parser.add_argument("--height", type=int, default=2160, help="of the pictures; they are 16:9")
    parser.add_argument("--size", type=int, default=256, help="side of the view in pixels")
    parser.add_argument("--longest", type=float, default=120, help="seconds of a clip")
    flags = parser.parse_args()
    longest = f"faces.longest_seconds={flags.longest}"
    settings = changed(Settings(size=flags.size), [*_OPEN, longest])
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        films = [(f"{n} s", Path(folder) / f"{n}.mkv", n, flags.height) for n in flags.seconds]
        films += [(f"{n} h of sound", Path(folder) / f"{n}.mka", n * 3600, 0) for n in flags.hours]
        for name, path, seconds, height in films:
            # Each in a process of its own: a new one's peak begins at what its parent holds.
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                pool.apply(write_film, (path, seconds, height))
                rows[name] = pool.apply(prepared, (path, settings))
            path.unlink()
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    run(main)
