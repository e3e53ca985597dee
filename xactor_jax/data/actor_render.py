"""A motion on an actor's face, in front of their camera."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from scipy.ndimage import gaussian_filter1d

from xactor_jax.data import rasteriser
from xactor_jax.data.actor_head import Head
from xactor_jax.data.actor_look import Look, rotation
from xactor_jax.data.actor_motion import Motion
from xactor_jax.media.faces import TRACK_SIGMA, VIEW_SCALE

SAMPLES = 2
"""Samples a pixel in each direction."""

# BlazeFace boxes from landmarks, by least squares over 400 renders of 40 actors whose own boxes
# were found by face_detection_short_range.tflite; what remains is 3 % of a side.
_BOX_SIDE = (1.52, 0.335)  # eyes to mouth, temple to temple
_BOX_CENTRE = (0.48, -1.54)  # eyes to mouth, face to nose tip
_BRIGHTER = 1 / 1.15  # exponent of the tone curve


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """What the picture shows, on the plane through the head's origin: centre and side in cm."""

    right: float
    down: float
    side: float


def _pivot(look: Look, head: Head) -> np.ndarray:
    """Where the head turns on the neck: between the ears, a little below them."""
    marks = look.vertices[head.kit.landmarks]
    ears = marks[[0, 16]].mean(0)
    return np.array([0, ears[1] - 0.55 * (ears[1] - marks[8, 1]), ears[2] - 2.5], np.float32)


def _rotations(pose: np.ndarray) -> np.ndarray:
    return np.stack([rotation(*row) for row in pose[:, :3].astype(float)]).astype(np.float32)


def _view_side(look: Look, head: Head) -> float:
    """Side in cm of the view of the actor at rest; the unit of a pose's last two numbers."""
    rest = _project(look.vertices[head.kit.landmarks][None] @ look.camera.T, look.distance)
    return float(VIEW_SCALE * _boxes(rest)[0, 2])


def _project(points: np.ndarray, distance: float) -> np.ndarray:
    near = distance / (distance - points[..., 2:])
    return points[..., :2] * near * [1, -1]


def _boxes(marks: Float32[np.ndarray, "t 68 2"]) -> Float32[np.ndarray, "t 3"]:
    eyes, mouth = marks[:, 36:48].mean(1), marks[:, 48:68].mean(1)
    tall = np.linalg.norm(mouth - eyes, axis=1)
    wide = np.linalg.norm(marks[:, 16] - marks[:, 0], axis=1)
    side = _BOX_SIDE[0] * tall + _BOX_SIDE[1] * wide
    # A turned head shows more of the side that the nose turns away from.
    nose = marks[:, 30] - (eyes + mouth) / 2
    centre = eyes + _BOX_CENTRE[0] * (mouth - eyes) + _BOX_CENTRE[1] * nose
    return np.stack([centre[:, 1], centre[:, 0], side], 1)


def head_boxes(motion: Motion, look: Look, head: Head) -> Float32[np.ndarray, "t 3"]:
    """The head box of each frame in cm on the picture plane: centre down, centre right, side.

    It is where BlazeFace (MediaPipe's short-range detector) puts its box, from the true landmarks
    of the face without expression, smoothed in time like the boxes of real footage.
    """
    marks, pivot = look.vertices[head.kit.landmarks], _pivot(look, head)
    turned = np.einsum("tij,nj->tni", _rotations(motion.pose), marks - pivot) + pivot
    turned[..., :2] += motion.pose[:, None, 3:] * _view_side(look, head)
    boxes = _boxes(_project(turned @ look.camera.T, look.distance))
    return gaussian_filter1d(boxes, TRACK_SIGMA, axis=0, mode="nearest").astype(np.float32)


def view_window(boxes: Float32[np.ndarray, "t 3"]) -> Window:
    """The square window of a clip: around the median head box, twice its side."""
    down, right, side = np.median(boxes, axis=0)
    return Window(float(right), float(down), float(VIEW_SCALE * side))


def render(
    motion: Motion, look: Look, head: Head, size: int, samples: int = SAMPLES
) -> tuple[Iterator[UInt8[np.ndarray, "size size 3"]], Float32[np.ndarray, "t 3"]]:
    """The frames of a motion on an actor, one by one, and their head boxes in units of the view.

    Returns an iterator of RGB pictures of size x size and (t,3): centre down, centre right, side.
    """
    boxes = head_boxes(motion, look, head)
    window = view_window(boxes)
    origin = np.array([window.down, window.right, 0]) - 0.5 * window.side * np.array([1, 1, 0])
    placed = ((boxes - origin) / window.side).astype(np.float32)
    return _frames(motion, look, head, window, size, samples), placed


def _frames(motion, look, head, window, size, samples) -> Iterator[np.ndarray]:
    large = size * samples
    scene = np.array([window.right, window.down, large / window.side, large / 2], np.float32)
    background = cv2.resize(look.background, (large, large), interpolation=cv2.INTER_LINEAR)
    # On the screen y points down, which turns every triangle around.
    triangles = np.ascontiguousarray(head.kit.triangles[:, ::-1])
    solid = head.kit.triangles
    vertices, world, normals, lit, screen = (np.empty_like(look.vertices) for _ in range(5))
    image = np.empty((large, large, 3), np.float32)
    depth = np.empty((large, large), np.float32)
    curve = (np.linspace(0, 1, 1024) ** _BRIGHTER * 255 + 0.5).astype(np.uint8)
    pivot, shifts = _pivot(look, head), motion.pose[:, 3:] * _view_side(look, head)
    turns = _rotations(motion.pose)
    for i in range(len(motion)):
        rasteriser.deform(
            look.vertices, head.starts, head.indices, head.offsets, motion.expression[i], vertices
        )
        _turn_eyes(vertices, look, head, motion.gaze[i])
        rasteriser.place(
            vertices, head.follow, turns[i], pivot, shifts[i].astype(np.float32), look.camera,
            look.distance, scene, world, screen,
        )  # fmt: skip
        rasteriser.vertex_normals(world, solid, normals)
        rasteriser.light_vertices(
            normals, look.colours, look.shine, look.light, look.key, look.fill, lit
        )
        image[:] = background
        depth[:] = np.inf
        rasteriser.draw(screen, lit, triangles, head.push, image, depth)
        picture = np.empty((size, size, 3), np.uint8)
        rasteriser.resolve(image, samples, curve, picture)
        yield picture


def _turn_eyes(vertices: np.ndarray, look: Look, head: Head, gaze: np.ndarray) -> None:
    turn = rotation(float(gaze[0]), -float(gaze[1]), 0).astype(np.float32)
    for eye, centre in zip(head.eyes, look.eyes, strict=True):
        vertices[eye] = (look.vertices[eye] - centre) @ turn.T + centre
