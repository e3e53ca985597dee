"""How an actor looks: bones, skin, hair, eyes, clothes, and the place and light they sit in."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float32

from xactor_jax.data.actor_head import Head
from xactor_jax.data.facekit import EXPRESSION_INDEX

_SKINS = np.array(
    [[0.95, 0.78, 0.69], [0.90, 0.69, 0.57], [0.81, 0.58, 0.45], [0.68, 0.46, 0.34],
     [0.53, 0.35, 0.26], [0.38, 0.25, 0.19]]
)  # fmt: skip
_HAIRS = np.array(
    [[0.06, 0.05, 0.05], [0.17, 0.10, 0.06], [0.33, 0.20, 0.11], [0.62, 0.45, 0.24],
     [0.42, 0.16, 0.06], [0.55, 0.54, 0.53]]
)  # fmt: skip
_IRISES = np.array(
    [[0.25, 0.45, 0.65], [0.35, 0.21, 0.10], [0.28, 0.42, 0.22], [0.20, 0.12, 0.07],
     [0.42, 0.45, 0.48], [0.45, 0.30, 0.12]]
)  # fmt: skip
_OUTER_LIPS = range(48, 60)
_BROWS = (range(17, 22), range(22, 27))
_LIDS = (range(36, 42), range(42, 48))


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """One actor in front of one camera. Lengths in cm, colours in [0,1], directions unit vectors.

    vertices, colours: (v,3); shine (v,); light, key, fill (3,): direction to the light, its colour
    and that of its surroundings; camera (3,3) turns the world before a lens `distance` away;
    eyes (2,3): centres of the eyeballs; background (h,w,3) covers the picture.
    """

    vertices: Float32[np.ndarray, "v 3"]
    colours: Float32[np.ndarray, "v 3"]
    shine: Float32[np.ndarray, " v"]
    light: Float32[np.ndarray, " 3"]
    key: Float32[np.ndarray, " 3"]
    fill: Float32[np.ndarray, " 3"]
    camera: Float32[np.ndarray, "3 3"]
    distance: float
    eyes: Float32[np.ndarray, "2 3"]
    background: Float32[np.ndarray, "h w 3"]


def make_look(head: Head, seed: tuple[int, ...]) -> Look:
    """The actor that follows from `seed`."""
    random = np.random.default_rng(seed)
    shape = np.clip(random.normal(0, 0.8, len(head.kit.identities)), -2, 2).astype(np.float32)
    vertices = head.kit.neutral + np.tensordot(shape, head.kit.identities, 1)
    vertices = _at_rest(head, vertices)
    colours, shine, hair = _paint(head, vertices, random)
    vertices = vertices + _hair_volume(head, vertices, hair, random)
    light = np.array([random.uniform(-0.8, 0.8), random.uniform(0.05, 0.8), 1.0])
    warmth = random.uniform(-0.06, 0.06) * np.array([1, 0.2, -1])
    azimuth, elevation = random.normal(0, np.radians(3.5)), random.normal(0, np.radians(3))
    eyes = [(vertices[e].max(0) + vertices[e].min(0)) / 2 for e in head.eyes]
    return Look(
        vertices=vertices.astype(np.float32),
        colours=colours.astype(np.float32),
        shine=shine.astype(np.float32),
        light=(light / np.linalg.norm(light)).astype(np.float32),
        key=(random.uniform(0.5, 0.7) * (1 + warmth)).astype(np.float32),
        fill=(random.uniform(0.3, 0.42) * (1 - warmth)).astype(np.float32),
        camera=rotation(azimuth, elevation, 0).astype(np.float32),
        distance=float(random.uniform(65, 140)),
        eyes=np.stack(eyes).astype(np.float32),
        background=_background(random),
    )


def _at_rest(head: Head, vertices: np.ndarray) -> np.ndarray:
    """The face with its lips just touching; the shapes of some identities leave them apart."""
    upper, lower = head.kit.landmarks[[62, 66]]
    close = head.kit.expressions[EXPRESSION_INDEX["mouthClose"]]
    lift = close[lower, 1] - close[upper, 1]
    if lift <= 0:
        return vertices
    apart = vertices[upper, 1] - vertices[lower, 1] - 0.02
    return vertices + np.clip(apart / lift, -0.1, 0.25) * close


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Turn to the right of the picture, then nod down, then tilt the crown left: (3,3)."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ nod @ turn


def _distance(points: np.ndarray, path: np.ndarray, closed: bool = False) -> np.ndarray:
    """Distance in cm of points (v,3) from a path of segments (k,3)."""
    ends = np.roll(path, -1, 0) if closed else path[1:]
    nearest = np.full(len(points), np.inf)
    for a, b in zip(path, ends, strict=False):
        along = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a) + 1e-9), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(points - a - along[:, None] * (b - a), axis=1))
    return nearest


def _blend(colours: np.ndarray, weight: np.ndarray, colour: np.ndarray) -> None:
    colours += weight[:, None] * (colour - colours)


def _paint(head: Head, vertices: np.ndarray, random: np.random.Generator):
    """Colours (v,3), shine (v,) and how much of each vertex is hair (v,)."""
    marks = vertices[head.kit.landmarks]
    skin = _SKINS[random.integers(len(_SKINS))] * random.uniform(0.92, 1.05)
    dark = skin.mean() < 0.45
    hair = _HAIRS[random.integers(2 if dark else len(_HAIRS))] * random.uniform(0.8, 1.2)
    colours = np.tile(skin, (len(vertices), 1))
    shine = np.full(len(vertices), random.uniform(0.04, 0.14))
    outside = head.skin.astype(float)
    for size, strength in ((0.5, 0.04), (1.8, 0.03)):
        waves = np.sin(vertices @ random.normal(0, size, (3, 6)) + random.uniform(0, 6.28, 6))
        colours *= 1 + strength * waves.mean(1, keepdims=True)
    for side in (-1, 1):
        cheek = marks[33] + [3.9 * side, 0.9, -1.6]
        near = np.exp(-(np.linalg.norm(vertices - cheek, axis=1) ** 2) / 4.5)
        colours *= 1 - near[:, None] * random.uniform(0, 0.12) * np.array([0, 1, 0.9])
    _paint_lips(vertices, marks, outside, colours, shine, skin, random)
    _paint_eyes_and_brows(vertices, marks, outside, colours, hair, random)
    if random.random() < (0.2 if dark else 0.35):
        _blend(colours, outside * _beard(vertices, marks) * random.uniform(0.15, 0.6), hair)
    covered = _scalp(vertices, marks, random) * outside
    strands = 1 + 0.25 * np.sin(vertices[:, 0] * 9 + 3 * np.sin(vertices[:, 2] * 2))
    _blend(colours, covered, hair * strands[:, None])
    shine = shine * (1 - covered) + 0.12 * covered
    _paint_inside(head, vertices, marks, colours, shine, skin)
    _paint_eyeballs(head, vertices, colours, shine, random)
    _paint_clothes(head, vertices, marks, colours, shine, random)
    return colours, shine, covered


def _paint_lips(vertices, marks, outside, colours, shine, skin, random) -> None:
    edge = _distance(vertices[:, :2], marks[_OUTER_LIPS, :2], closed=True)
    inside = _within(vertices[:, :2], marks[_OUTER_LIPS, :2])
    red = np.clip(0.5 + np.where(inside, edge, -edge) / 0.22, 0, 1) * outside
    red *= vertices[:, 2] > marks[[48, 54], 2].mean() - 1.0
    tint = np.array([0.92, 0.48, 0.5]) if skin.mean() > 0.45 else np.array([1.35, 0.75, 0.8])
    _blend(colours, red * random.uniform(0.85, 1.0), skin * tint * random.uniform(0.75, 0.95))
    shine += red * random.uniform(0.08, 0.22)


def _within(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points (v,2) lie inside a polygon (k,2), by counting edges crossed to the right."""
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        crosses = (ay > y) != (by > y)
        inside ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay + 1e-12))
    return inside


def _paint_eyes_and_brows(vertices, marks, outside, colours, hair, random) -> None:
    brow = hair * min(1, 0.45 / hair.max()) * random.uniform(0.6, 1.0)
    width, strength = random.uniform(0.3, 0.48), random.uniform(0.65, 0.95)
    for line in _BROWS:
        near = np.exp(-((_distance(vertices, marks[line]) / width) ** 2))
        _blend(colours, near * strength * outside, brow)
    lashes = random.uniform(0.35, 0.8)
    for line in _LIDS:
        near = np.exp(-((_distance(vertices, marks[line], closed=True) / 0.14) ** 2))
        _blend(colours, near * lashes * outside, np.full(3, 0.07))


def _beard(vertices, marks) -> np.ndarray:
    jaw = np.exp(-((_distance(vertices, marks[3:14]) / 1.9) ** 2))
    lip = np.exp(-((_distance(vertices, (marks[48:55] + marks[33]) / 2) / 0.5) ** 2))
    return np.clip(jaw + lip, 0, 1) * np.clip((marks[30, 1] - vertices[:, 1]) / 2.5, 0, 1)


def _scalp(vertices, marks, random) -> np.ndarray:
    """How much of each vertex is under hair: 0 to 1, cropped to long, or none."""
    if random.random() < 0.06:
        return np.zeros(len(vertices))
    x, y, z = vertices.T
    brow, ear = marks[17:27, 1].mean(), marks[[0, 16], 2].mean()
    curve = random.uniform(0.015, 0.05)
    hairline = brow + random.uniform(3.2, 4.6) - curve * x**2
    wave = 0.25 * np.sin(x * random.uniform(1, 3) + random.uniform(0, 6))
    top = np.clip((y - hairline - wave) / 0.7, 0, 1)
    long = random.random() < 0.4
    length = marks[8, 1] - random.uniform(0, 5) if long else marks[30, 1] + random.uniform(-1, 2)
    behind = np.clip((ear - (1.2 if long else 3.2) - z) / 1.0, 0, 1)
    ears = np.clip((np.abs(x) - 1.03 * np.abs(marks[[0, 16], 0]).mean()) / 0.3, 0, 1)
    sides = behind * np.clip((y - length) / 1.5, 0, 1) * (1 - ears)
    return np.maximum(top, sides)


def _hair_volume(head: Head, vertices, hair, random) -> np.ndarray:
    """Offsets (v,3) that raise the hair off the skull."""
    marks = vertices[head.kit.landmarks]
    middle = np.array([0, marks[27, 1] + 1.0, marks[[0, 16], 2].mean()])
    outwards = vertices - middle
    # Below the ears hair hangs: it stands off sideways, not down.
    outwards[:, 1] = np.maximum(outwards[:, 1], 0)
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True) + 1e-9
    height = np.clip((vertices[:, 1] - marks[27, 1]) / 8, -0.5, 1)
    top, side = random.uniform(0.2, 1.8), random.uniform(0.1, 1.5)
    lumps = np.sin(vertices @ random.normal(0, 0.7, (3, 4)) + random.uniform(0, 6, 4)).mean(1)
    thickness = (side + (top - side) * np.maximum(height, 0)) * (1 + 0.35 * lumps)
    return outwards * (hair**2 * thickness)[:, None]


def _paint_inside(head: Head, vertices, marks, colours, shine, skin) -> None:
    """Walls, gums, tongue and teeth, darker the deeper they lie."""
    depth = np.clip((marks[62, 2] - vertices[:, 2] - 0.8) / 5.5, 0, 1)[:, None]
    shade = (1 - 0.85 * depth) * np.ones_like(colours)
    for part, colour in (
        (head.mouth, np.array([0.34, 0.10, 0.10])),
        (head.gums, np.array([0.68, 0.27, 0.28])),
        (head.teeth, np.array([0.93, 0.90, 0.83])),
    ):
        colours[part] = (colour * shade)[part]
    shine[head.mouth | head.gums] = 0.05
    shine[head.teeth] = 0.25
    inside = head.mouth | head.gums | head.teeth | head.skin | head.torso
    sockets = ~(inside | head.eyes[0] | head.eyes[1])
    colours[sockets] = skin * 0.5


def _paint_eyeballs(head: Head, vertices, colours, shine, random) -> None:
    iris = _IRISES[random.integers(len(_IRISES))] * random.uniform(0.8, 1.2)
    pupil = random.uniform(0.17, 0.23)
    for eye in head.eyes:
        ball = vertices[eye]
        if not len(ball):
            continue
        away = ball - (ball.max(0) + ball.min(0)) / 2
        cosine = away[:, 2] / (np.linalg.norm(away, axis=1) + 1e-9)
        angle = np.arccos(np.clip(cosine, -1, 1))
        colour = np.tile([0.92, 0.91, 0.90], (len(ball), 1))
        _blend(colour, np.clip((0.52 - angle) / 0.05, 0, 1), iris * 0.45)
        _blend(colour, np.clip((0.46 - angle) / 0.06, 0, 1), iris)
        _blend(colour, np.clip((pupil - angle) / 0.04, 0, 1), np.full(3, 0.02))
        colours[eye] = colour
        shine[eye] = 0.5


def _paint_clothes(head: Head, vertices, marks, colours, shine, random) -> None:
    x, y, z = vertices.T
    cloth = random.uniform(0.05, 0.75, 3)
    collar = marks[8, 1] - random.uniform(5.0, 7.5)
    neckline = collar - np.where(z > 0, random.uniform(0, 3.5), 0) * np.exp(-((x / 3.5) ** 2))
    worn = np.clip((neckline - y) / 0.35, 0, 1) * (head.skin | head.torso)
    worn = np.maximum(worn, head.torso)
    kind = random.integers(3)
    stripes = np.sin(y * random.uniform(2, 5) if kind == 1 else x * random.uniform(2, 5))
    contrast = 0.0 if kind == 0 else random.uniform(0.1, 0.35)
    _blend(colours, worn, cloth * (1 + contrast * np.sign(stripes))[:, None])
    shine *= 1 - 0.8 * worn


def _background(random: np.random.Generator, size: int = 256) -> np.ndarray:
    """A wall with a gradient and a few things out of focus, (size,size,3)."""
    down = np.linspace(0, 1, size)[:, None, None]
    wall = _dull(random, 0.85) * (1 - down) + _dull(random, 0.7) * down
    picture = np.broadcast_to(wall, (size, size, 3)).astype(np.float32).copy()
    for _ in range(random.integers(0, 9)):
        y, x = random.integers(-size // 4, size, 2)
        h, w = random.integers(size // 12, size // 2, 2)
        colour = _dull(random, 0.9)
        picture[max(y, 0) : y + h, max(x, 0) : x + w] = colour.astype(np.float32)
    return cv2.GaussianBlur(picture, (0, 0), float(random.uniform(3, 16)))


def _dull(random: np.random.Generator, brightest: float) -> np.ndarray:
    """A colour of walls and things: half way to grey."""
    colour = random.uniform(0.05, brightest, 3)
    return 0.5 * colour + 0.5 * colour.mean()
