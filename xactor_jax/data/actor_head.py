"""The part of a facekit that a camera in front can see, with shoulders, and where its parts are."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from xactor_jax.data.facekit import Facekit

TORSO = "torso"
# Transparent films and cards that need textures with an alpha channel.
_UNSEEN = ("M_EyeBlend", "M_EyeOcclusion", "M_LacrimalFluid", "M_EyeLashes")
_INSIDE = ("M_GumsTongue", "M_Teeth")
_EYES = (("M_IrisLeft", "M_ScleraLeft"), ("M_IrisRight", "M_ScleraRight"))
# Rings that continue the bust downwards: outwards (factor, from its middle) and down (cm).
_RINGS = ((1.12, 0.6), (1.28, 2.2), (1.42, 5.0), (1.48, 16.0))


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """A facekit ready to be looked at from the front: compact, and with named parts.

    Vertex masks (v,): skin, mouth (its walls), gums, teeth, torso, and one for each eye (the one
    on the picture's right first). push (n,): depth in cm by which triangles inside the mouth and
    the eyes stand back, so that lips and lids always cover them. follow (v,): how far a vertex
    turns with the head. The expression offsets are sparse, see `rasteriser.deform`.
    """

    kit: Facekit
    skin: np.ndarray
    mouth: np.ndarray
    gums: np.ndarray
    teeth: np.ndarray
    torso: np.ndarray
    eyes: tuple[np.ndarray, np.ndarray]
    push: np.ndarray
    follow: np.ndarray
    starts: np.ndarray
    indices: np.ndarray
    offsets: np.ndarray

    @property
    def landmarks(self) -> np.ndarray:
        """The 68 landmarks of the neutral generic face, (68,3) cm."""
        return self.kit.neutral[self.kit.landmarks]


def build_head(kit: Facekit) -> Head:
    """Cut away what cannot be seen, add shoulders and find the parts."""
    kit = _seen_from_the_front(_with_shoulders(_without(kit, kit.of(*_UNSEEN))))
    walls, sockets = _bags(kit)
    count = len(kit.neutral)

    def vertices(chosen: np.ndarray) -> np.ndarray:
        mask = np.zeros(count, bool)
        mask[kit.triangles[chosen]] = True
        return mask

    outside = kit.of("M_Face", "M_BackHead") & ~walls & ~sockets
    eyes = [vertices(kit.of(*names)) for names in _EYES]
    push = np.zeros(len(kit.triangles), np.float32)
    push[walls | sockets | kit.of(*_INSIDE)] = 0.6
    push[kit.of(*_EYES[0], *_EYES[1])] = 0.12
    starts, indices, offsets = _sparse(kit.expressions)
    return Head(
        kit=kit,
        skin=vertices(outside),
        mouth=vertices(walls) & ~vertices(outside),
        gums=vertices(kit.of("M_GumsTongue")),
        teeth=vertices(kit.of("M_Teeth")),
        torso=vertices(kit.of(TORSO)) & ~vertices(outside),
        eyes=(eyes[0], eyes[1]),
        push=push,
        follow=_follow(kit),
        starts=starts,
        indices=indices,
        offsets=offsets,
    )


def _without(kit: Facekit, dropped: np.ndarray) -> Facekit:
    """The facekit less some triangles and the vertices that only they used (landmarks stay)."""
    triangles = kit.triangles[~dropped]
    used = np.unique(np.concatenate([triangles.ravel(), kit.landmarks]))
    number = np.zeros(len(kit.neutral), np.int32)
    number[used] = np.arange(len(used))
    return dataclasses.replace(
        kit,
        neutral=kit.neutral[used],
        expressions=kit.expressions[:, used],
        identities=kit.identities[:, used],
        triangles=number[triangles],
        materials=kit.materials[~dropped],
        landmarks=number[kit.landmarks],
    )


def _components(kit: Facekit, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the chosen triangles and, for each, which connected piece it belongs to."""
    which = np.flatnonzero(chosen)
    a, b, c = kit.triangles[which].T
    rows, columns = np.concatenate([a, b]), np.concatenate([b, c])
    shape = (len(kit.neutral), len(kit.neutral))
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    return which, connected_components(graph, directed=False)[1][a]


def _bags(kit: Facekit) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of the walls of the mouth and of the eye sockets: two masks (n,).

    They are pieces of the material of the back of the head that are not the largest piece.
    """
    walls = np.zeros(len(kit.triangles), bool)
    sockets = walls.copy()
    which, piece = _components(kit, kit.of("M_BackHead"))
    if not len(which):
        return walls, sockets
    nose = kit.neutral[kit.landmarks[33], 1]
    heights = kit.neutral[kit.triangles[which], 1]
    skull = max(set(piece), key=lambda p: np.ptp(heights[piece == p]))
    for p in set(piece) - {skull}:
        below = heights[piece == p].mean() < nose
        (walls if below else sockets)[which[piece == p]] = True
    return walls, sockets


def _with_shoulders(kit: Facekit) -> Facekit:
    """The bust, continued downwards and outwards below its open lower edge."""
    outside = kit.of("M_Face", "M_BackHead")
    faces = kit.triangles[outside]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    key = np.sort(edges, 1)
    _, first, times = np.unique(key, axis=0, return_index=True, return_counts=True)
    border = edges[first[times == 1]]
    chin, eye = (kit.neutral[kit.landmarks[i], 1] for i in (8, 36))
    border = border[(kit.neutral[border, 1] < chin - 0.25 * (eye - chin)).all(1)]
    if not len(border):
        return kit
    loop, corner = np.unique(border, return_inverse=True)
    corner = corner.reshape(border.shape)
    middle = kit.neutral[loop].mean(0)
    neutral, triangles = [kit.neutral], [kit.triangles]
    before, total = loop.astype(np.int32), len(kit.neutral)
    for outwards, down in _RINGS:
        ring = kit.neutral[loop].copy()
        ring[:, [0, 2]] = middle[[0, 2]] + (ring[:, [0, 2]] - middle[[0, 2]]) * outwards
        ring[:, 1] -= down
        neutral.append(ring)
        after = np.arange(total, total + len(loop), dtype=np.int32)
        a, b = before[corner[:, 0]], before[corner[:, 1]]
        below_a, below_b = after[corner[:, 0]], after[corner[:, 1]]
        triangles += [np.stack([b, a, below_a], 1), np.stack([b, below_a, below_b], 1)]
        before, total = after, total + len(loop)
    added = sum(map(len, triangles)) - len(kit.triangles)
    repeated = np.concatenate([np.arange(len(kit.neutral)), *[loop] * len(_RINGS)])
    expressions = kit.expressions[:, repeated]
    expressions[:, len(kit.neutral) :] = 0
    torso = np.full(added, len(kit.material_names), np.int32)
    return dataclasses.replace(
        kit,
        neutral=np.concatenate(neutral),
        expressions=expressions,
        identities=kit.identities[:, repeated],
        triangles=np.concatenate(triangles),
        materials=np.concatenate([kit.materials, torso]),
        material_names=(*kit.material_names, TORSO),
    )


def _seen_from_the_front(kit: Facekit) -> Facekit:
    """The facekit less triangles that face away so far that no pose in range shows them."""
    a, b, c = (kit.neutral[kit.triangles[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    forward = normal[:, 2] / (np.linalg.norm(normal, axis=1) + 1e-12)
    inner = kit.of(*_INSIDE, *_EYES[0], *_EYES[1])
    back = np.where(inner, forward < -0.45, forward < -0.75)
    depth = kit.neutral[kit.landmarks[62], 2] - kit.neutral[kit.triangles].mean(1)[:, 2]
    # Behind the canines the teeth have roots but no gums around them; the cheeks hide the rest.
    deep = (kit.of("M_Teeth") & (depth > 2.5)) | (kit.of("M_GumsTongue") & (depth > 7))
    return _without(kit, back | deep)


def _follow(kit: Facekit) -> np.ndarray:
    """1 for the head, 0 for the shoulders, a smooth step along the neck."""
    chin, eye = (kit.neutral[kit.landmarks[i], 1] for i in (8, 36))
    face = eye - chin
    height = (kit.neutral[:, 1] - (chin - 0.75 * face)) / (0.75 * face)
    # The nape is higher than the throat.
    height = height - 0.04 * np.maximum(kit.neutral[kit.landmarks[0], 2] - kit.neutral[:, 2], 0)
    t = np.clip(height, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _sparse(expressions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets above a fiftieth of a millimetre: where each shape starts, vertices, offsets."""
    starts, indices, offsets = [0], [], []
    for shape in expressions:
        moved = np.flatnonzero(np.abs(shape).max(1) > 2e-3)
        indices.append(moved)
        offsets.append(shape[moved])
        starts.append(starts[-1] + len(moved))
    return (
        np.array(starts, np.int64),
        np.concatenate(indices).astype(np.int32),
        np.concatenate(offsets).astype(np.float32),
    )
