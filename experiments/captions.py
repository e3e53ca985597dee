"""How often preparation sees writing in the picture: captions and marks drawn on good clips.

    python -m experiments.captions --footage=data/raw --actors=data/actors --pictures=data/portraits

The views of clean clips, as preparation cuts them, are measured as they are, with a caption in
their lower part and with a station's mark in a corner. Captions stand still or change every one to
three seconds, are white or yellow, plain, outlined or on a dark box; marks are a short word of any
colour, more or less transparent. All are random, from one seed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from xactor_jax.command import Parser, run
from xactor_jax.data.shards import FRAME_RATE, decode_frames, open_shards
from xactor_jax.errors import InputError
from xactor_jax.media import faces
from xactor_jax.media.image import read_image
from xactor_jax.preparation.clips import Prepared, prepare_file
from xactor_jax.preparation.footage import find_films
from xactor_jax.preparation.quality import ViewMeter
from xactor_jax.preparation.settings import Settings, changed
from xactor_jax.progress import progress

SIZE = 256
LONGEST = 75  # frames of a clip
_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_FACES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Bold")
_COLOURS = ((255, 255, 255), (230, 40, 40), (60, 110, 230), (250, 210, 40))
_TEXT = (
    "the people of this house never said what they would do when winter came and nobody asked but "
    "every morning there was bread on our table while some small bird sang outside about summer"
)

Drawing = Float[np.ndarray, "s s 4"]
"""What is laid over a view: colour, 0 to 255, and opacity, 0 to 1."""


@dataclasses.dataclass(frozen=True)
class Style:
    """How a text is written; lengths in pixels."""

    font: str
    height: float
    colour: tuple[int, ...]
    outline: int
    box: bool
    opacity: float


def written(text: str, style: Style, place: tuple[float, float], size: int) -> Drawing:
    """A text whose middle is at `place` (y, x), in units of the view; it is kept inside."""
    font = ImageFont.truetype(str(_FONTS / f"{style.font}.ttf"), style.height)
    layer = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    left, top, right, bottom = pen.textbbox((0, 0), text, font, stroke_width=style.outline)
    y, x = (
        float(np.clip(at * size - length / 2, 2, max(size - length - 2, 2)))
        for at, length in zip(place, (bottom - top, right - left), strict=True)
    )
    if style.box:
        pen.rectangle((x - 4, y - 4, x + right - left + 4, y + bottom - top + 4), (0, 0, 0, 150))
    pen.text(
        (x - left, y - top),
        text,
        (*style.colour, 255),
        font,
        stroke_width=style.outline,
        stroke_fill=(0, 0, 0, 255),
    )
    drawing = np.asarray(layer).astype(np.float32)
    drawing[..., 3] *= style.opacity / 255
    return drawing


def laid_over(view: UInt8[np.ndarray, "s s 3"], drawing: Drawing) -> UInt8[np.ndarray, "s s 3"]:
    """The view with the drawing on it."""
    share = drawing[..., 3:]
    return np.round(view * (1 - share) + drawing[..., :3] * share).astype(np.uint8)


def caption(frames: int, size: int, random: np.random.Generator) -> list[Drawing]:
    """For every frame a line of three to six words in the lower fifth."""
    box = bool(random.random() < 0.3)
    style = Style(
        font=str(random.choice(_FACES)),
        height=random.uniform(0.05, 0.1) * size,
        colour=(255, 255, 255) if random.random() < 0.7 else (255, 235, 60),
        outline=0 if box or random.random() < 0.4 else max(1, round(size / 128)),
        box=box,
        opacity=1.0,
    )
    place = random.uniform(0.82, 0.95), 0.5
    stays = round(random.uniform(1, 3) * FRAME_RATE) if random.random() < 0.5 else frames
    words = _TEXT.split()
    texts = [" ".join(random.choice(words, random.integers(3, 7))) for _ in range(0, frames, stays)]
    drawn = [written(text, style, place, size) for text in texts]
    return [drawn[t // stays] for t in range(frames)]


def mark(frames: int, size: int, random: np.random.Generator) -> list[Drawing]:
    """A word of three to eight letters in a corner, the same in every frame."""
    style = Style(
        font=str(random.choice(_FACES)),
        height=random.uniform(0.06, 0.12) * size,
        colour=_COLOURS[random.integers(len(_COLOURS))],
        outline=int(random.random() < 0.3),
        box=False,
        opacity=random.uniform(0.5, 1),
    )
    letters = random.choice(list("ABCDEFGHIKLMNOPRSTUVWXYZ0123456789"), random.integers(3, 9))
    place = random.choice([0.07, 0.93]), random.choice([0.05, 0.95])
    return [written("".join(letters), style, place, size)] * frames


def overlay_of(views: np.ndarray, heads: np.ndarray, drawings: list[Drawing] | None) -> float:
    """The measure of preparation for views with something drawn on them."""
    meter = ViewMeter()
    for t, (view, head) in enumerate(zip(views, heads, strict=True)):
        meter.add(laid_over(view, drawings[t]) if drawings else view, head)
    return meter.measures(0.0, 0.0, 0.0).overlay


def of_footage(folder: Path, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Views and head boxes of every clip that preparation keeps, spread over the folder."""
    settings = changed(Settings(size=SIZE), ["quality.overlay=1", "sync.enabled=False"])
    found = find_films(folder)
    for one in found[:: -(-len(found) // most)]:
        try:
            results = list(prepare_file(one.path, one.name, "", settings))
        except InputError:
            continue
        for clip in (result.clip for result in results if isinstance(result, Prepared)):
            yield decode_frames(clip, range(min(len(clip), LONGEST))), clip.head_box[:LONGEST]


def of_actors(folder: Path, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Views and head boxes of rendered clips that are held out."""
    shards = open_shards(folder, "test")
    for i in range(0, len(shards), -(-len(shards) // most)):
        clip = shards[i]
        yield decode_frames(clip, range(min(len(clip), LONGEST))), clip.head_box[:LONGEST]


def of_pictures(folder: Path, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Views and head boxes of portraits, as clips of one frame."""
    for path in [path for path in sorted(folder.iterdir()) if path.is_file()][:most]:
        try:
            picture = read_image(path)
        except InputError:
            continue
        if found := faces.detect_faces(picture):
            box = np.array([found[0].box])
            window = faces.view_window(box, *picture.shape[:2])
            yield faces.cut_view(picture, window, SIZE)[None], faces.to_view(box, window)


def main() -> None:
    """Measure, and print shares of clips that are refused as JSON."""
    parser = Parser(__doc__.split("\n")[0])
    for name in ("footage", "actors", "pictures"):
        parser.add_argument(f"--{name}", type=Path, action="append", default=[], help="a folder")
    parser.add_argument("--clips", type=int, default=40, help="at most so many of each folder")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    flags = parser.parse_args(sys.argv[1:])
    if not (flags.footage or flags.actors or flags.pictures):
        raise InputError("no folder to draw on; give --footage, --actors or --pictures")
    cv2.setNumThreads(1)
    threshold, random = Settings().quality.overlay, np.random.default_rng(flags.seed)
    sources = [
        *((folder, of_footage) for folder in flags.footage),
        *((folder, of_actors) for folder in flags.actors),
        *((folder, of_pictures) for folder in flags.pictures),
    ]
    rows = {}
    for folder, clips in sources:
        found = []
        with progress(folder.name, flags.clips, "clips") as advance:
            for views, heads in clips(folder, flags.clips):
                drawn = [draw(len(views), views.shape[1], random) for draw in (caption, mark)]
                found.append([overlay_of(views, heads, drawing) for drawing in (None, *drawn)])
                advance(1)
        values = np.array(found).reshape(-1, 3)
        refused = (values > threshold).mean(axis=0)
        rows[str(folder)] = {
            "clips": len(values),
            **dict(zip(("clean refused", "captions found", "marks found"), refused, strict=True)),
            "largest of clean": values[:, 0].max(initial=0),
        }
    print(json.dumps(rows, indent=1, default=float))


if __name__ == "__main__":
    run(main)
