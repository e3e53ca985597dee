"""A face for tests: an egg with eyes and teeth, its landmarks numbered as in ICT-FaceKit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xactor_jax.data.facekit import EXPRESSION_INDEX, EXPRESSIONS, LANDMARKS, Facekit

RADII = np.array([7.5, 11.0, 9.0])  # cm
_LIP = -4.0  # height of the line between the lips


def _on_egg(x, y) -> np.ndarray:
    """The point of the front of the egg at a place of the picture: (...,3)."""
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    z = RADII[2] * np.sqrt(np.maximum(1 - (x / RADII[0]) ** 2 - (y / RADII[1]) ** 2, 0))
    return np.stack([x, y, z], -1)


def _wanted_landmarks() -> np.ndarray:
    """Places of the 68 iBUG landmarks on the egg."""

    def ring(centre, width, height, count, start=np.pi):
        angle = start - np.arange(count) * 2 * np.pi / count
        return _on_egg(centre[0] + width * np.cos(angle), centre[1] + height * np.sin(angle))

    side = np.linspace(-1, 1, 17)
    jaw = _on_egg(7 * side, 2 - 9.5 * np.cos(side * np.pi / 2))
    brows = [_on_egg(np.linspace(a, a + 3, 5), 5.0) for a in (-4.5, 1.5)]
    nose = [_on_egg(np.zeros(4), np.linspace(3, 0, 4)), _on_egg(np.linspace(-1, 1, 5), -1.5)]
    eyes = [ring((x, 3), 1.2, 0.5, 6) for x in (-3, 3)]
    lips = [ring((0, _LIP), 2.4, 1.0, 12), ring((0, _LIP), 1.8, 0.3, 8)]
    return np.concatenate([jaw, *brows, *nose, *eyes, *lips])


def egg(rows: int = 82, columns: int = 84) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and outward triangles; the default has more vertices than any landmark number."""
    down = np.linspace(0.02, np.pi - 0.02, rows)[:, None]
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    vertices = np.stack(
        [np.sin(down) * np.sin(around), np.cos(down) + 0 * around, np.sin(down) * np.cos(around)],
        -1,
    )
    a = np.arange(rows - 1)[:, None] * columns + np.arange(columns)
    b = np.arange(rows - 1)[:, None] * columns + np.roll(np.arange(columns), -1)
    quads = np.stack([a, a + columns, b + columns, b], -1).reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return vertices.reshape(-1, 3) * RADII, triangles


def _ball(centre, radius, first) -> tuple[np.ndarray, np.ndarray]:
    vertices, triangles = egg(12, 14)
    return vertices / RADII * radius + centre, triangles + first


def make_facekit() -> Facekit:
    """The egg: jawOpen lowers all below the lips by 3 cm, mouthSmile widens, the rest is still."""
    vertices, triangles = egg()
    order = np.arange(len(vertices))
    places = _wanted_landmarks()
    taken: set[int] = set()
    for number, place in zip(LANDMARKS, places, strict=True):
        # The nearest free vertex moves to the place and takes the landmark's number.
        current = {int(v): i for i, v in enumerate(order)}
        for near in np.argsort(np.linalg.norm(vertices - place, axis=1)):
            if int(near) not in taken:
                break
        taken.add(int(near))
        vertices[near] = place
        i, j = int(number), current[int(near)]
        order[i], order[j] = order[j], order[i]
    rank = np.argsort(order)
    vertices, triangles = vertices[order], rank[triangles]
    materials = [np.zeros(len(triangles), int)]
    parts, faces = [vertices], [triangles]
    total = len(vertices)
    for material, centre, radius in (
        (1, (3.0, 3.0, 7.2), 1.5), (2, (-3.0, 3.0, 7.2), 1.5), (3, (0.0, _LIP, 6.0), 1.0),
    ):  # fmt: skip
        ball, ball_faces = _ball(np.array(centre), radius, total)
        parts.append(ball)
        faces.append(ball_faces)
        materials.append(np.full(len(ball_faces), material))
        total += len(ball)
    neutral = np.concatenate(parts).astype(np.float32)
    expressions = np.zeros((len(EXPRESSIONS), total, 3), np.float32)
    skin = np.arange(total) < len(vertices)
    below = skin & (neutral[:, 1] < _LIP - 1e-3) & (neutral[:, 2] > 0)
    expressions[EXPRESSION_INDEX["jawOpen"], below, 1] = -3.0
    for side, sign in (("L", 1), ("R", -1)):
        corner = skin & (sign * neutral[:, 0] > 1.5) & (abs(neutral[:, 1] - _LIP) < 1)
        expressions[EXPRESSION_INDEX[f"mouthSmile_{side}"], corner, 0] = 0.5 * sign
    identities = np.zeros((2, total, 3), np.float32)
    identities[0] = neutral * [0.05, 0, 0]
    identities[1] = neutral * [0, 0.05, 0]
    return Facekit(
        neutral, expressions, identities, np.concatenate(faces).astype(np.int32),
        np.concatenate(materials).astype(np.int32),
        ("M_Face", "M_IrisLeft", "M_IrisRight", "M_Teeth"), LANDMARKS,
    )  # fmt: skip


def save_npz(kit: Facekit, path: Path) -> Path:
    """The egg packed as the real facekit is."""
    np.savez_compressed(
        path, V0=kit.neutral, E=kit.expressions.astype(np.float16),
        I=kit.identities.astype(np.float16), F=kit.triangles, M=kit.materials.astype(np.uint8),
        mats=np.array(kit.material_names), ex=np.array(EXPRESSIONS),
    )  # fmt: skip
    return path


def save_checkout(kit: Facekit, folder: Path) -> Path:
    """The egg as the OBJ files of a checkout of the public repository."""
    model = folder / "FaceXModel"
    model.mkdir(parents=True)
    lines = []
    for material, name in enumerate(kit.material_names):
        lines.append(f"usemtl {name}")
        for triangle in kit.triangles[kit.materials == material] + 1:
            lines.append("f " + " ".join(f"{corner}/1" for corner in triangle))
    still = _vertex_lines(kit.neutral)
    (model / "generic_neutral_mesh.obj").write_text(f"# egg\n{still}\nvt 0 0\n" + "\n".join(lines))
    shapes = dict(zip(EXPRESSIONS, kit.expressions, strict=True))
    shapes |= {f"identity{i:03d}": offsets for i, offsets in enumerate(kit.identities)}
    for name, offsets in shapes.items():
        text = _vertex_lines(kit.neutral + offsets) if offsets.any() else still
        (model / f"{name}.obj").write_text(text + "\n")
    return folder


def _vertex_lines(vertices: np.ndarray) -> str:
    return "\n".join("v " + " ".join(f"{value:.6f}" for value in vertex) for vertex in vertices)
