"""Small media with known content: drawn faces, and videos whose frames tell their own time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from xactor_jax.preparation.settings import Settings, changed


def drawn_face(
    height: int = 240,
    width: int = 240,
    centre: tuple[float, float] = (120, 120),
    side: float = 100,
    mouth: float = 0.3,
) -> np.ndarray:
    """A shaded cartoon of a face in RGB, `side` pixels from brows to chin; the centre is (y, x)."""
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    u, v = (x - centre[1]) / side, (y - centre[0]) / side
    image = np.broadcast_to(np.float32([90, 120, 150]), (height, width, 3)).copy()

    def paint(mask: np.ndarray, colour: tuple[float, float, float]) -> None:
        image[:] = image * (1 - mask[..., None]) + np.float32(colour) * mask[..., None]

    def oval(cu: float, cv: float, ru: float, rv: float, soft: float = 0.08) -> np.ndarray:
        distance = np.hypot((u - cu) / ru, (v - cv) / rv)
        return np.clip((1 - distance) / soft + 0.5, 0, 1)

    paint(oval(0, 0.95, 1.0, 0.45), (60, 60, 70))
    paint(oval(0, 0.55, 0.25, 0.4), (170, 125, 100))
    paint(oval(0, -0.16, 0.60, 0.78), (50, 35, 25))
    paint(oval(0, -0.02, 0.50, 0.66), (215, 165, 135))
    paint(0.35 * oval(0, -0.3, 0.4, 0.2, 0.8), (250, 215, 190))
    for sign in (-1, 1):
        paint(0.35 * oval(sign * 0.26, 0.16, 0.16, 0.14, 0.9), (250, 200, 175))
        paint(0.55 * oval(sign * 0.22, -0.14, 0.17, 0.11, 0.6), (120, 80, 65))
        paint(oval(sign * 0.22, -0.27, 0.16, 0.035, 0.5), (60, 40, 30))
        paint(oval(sign * 0.22, -0.13, 0.10, 0.045, 0.3), (235, 235, 235))
        paint(oval(sign * 0.22, -0.13, 0.045, 0.045, 0.3), (40, 30, 25))
    paint(0.5 * oval(0, 0.03, 0.06, 0.2, 0.9), (250, 210, 185))
    paint(0.6 * oval(0, 0.15, 0.11, 0.045, 0.6), (140, 90, 75))
    paint(oval(0, 0.33, 0.18, 0.03 + 0.1 * mouth, 0.3), (150, 70, 70))
    return np.clip(image, 0, 255).astype(np.uint8)


def write_media(
    path: Path,
    frames: list[np.ndarray] | None = None,
    times: list[float] | None = None,
    audio: np.ndarray | None = None,
    rate: int = 16_000,
    late: float = 0.0,
    clock: float = 1.0,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Write frames shown at `times` (25 a second if not given) and sound that starts `late` s.

    Each hundredth second of sound is stamped `clock` times as late as it should be.

    Video is lossless in effect (x264 at quality 4) and sound is PCM, so what is read is known.
    """
    tick = Fraction(1, 30_000)
    with av.open(str(path), "w") as container:
        picture = sound = None
        if frames is not None:
            picture = container.add_stream("libx264", rate=25, options={"crf": "4"})
            picture.height, picture.width = frames[0].shape[:2]
            picture.pix_fmt = pix_fmt
            picture.codec_context.time_base = tick
        if audio is not None:
            sound = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        if picture is not None:
            for k, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = round((times[k] if times else k / 25) / tick)
                frame.time_base = tick
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        if sound is not None:
            samples = np.round(audio * 32767).astype(np.int16)[None]
            every = max(samples.shape[1], 1) if clock == 1 else rate // 100
            for start in range(0, samples.shape[1], every):
                block = np.ascontiguousarray(samples[:, start : start + every])
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.pts = round(late * rate + clock * start)
                frame.rate, frame.time_base = rate, Fraction(1, rate)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def grey_frames(levels: list[int], height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Flat frames of the given brightness."""
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


def talking_clip(length: int, drift: float = 0.0, height: int = 200, width: int = 240) -> list:
    """A drawn face whose mouth opens and closes, drifting right by `drift` pixels a frame."""
    return [
        drawn_face(
            height, width, (100, 100 + drift * t), 80, mouth=0.5 + 0.5 * float(np.sin(t / 2))
        )
        for t in range(length)
    ]


# Drawn faces are smooth, and the ramp of a tone is one held note.
DRAWN = ("quality.blur=0", "sound.music=1", "sound.silence=1", "sound.normalise=False")


def settings_for_drawn(size: int, *changes: str) -> Settings:
    """How drawn faces are prepared: all for training, and not refused for being drawn."""
    return changed(Settings(size=size), [*DRAWN, "splits.test=0", "splits.validation=0", *changes])
