"""The ICT-FaceKit head: one mesh, its identity shapes and its expression shapes."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import re
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from xactor_jax.errors import InputError

_SIDED = """
PupilDilate browDown browInnerUp browOuterUp cheekPuff cheekRaiser cheekSquint eyeBlink eyeLookDown
eyeLookIn eyeLookOut eyeLookUp eyeSquint eyeWide mouthDimple mouthFrown mouthLowerDown mouthPress
mouthSmile mouthStretch mouthUpperUp noseSneer
"""
_WHOLE = """
jawForward jawLeft jawOpen jawRight mouthClose mouthFunnel mouthLeft mouthPucker mouthRight
mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper
"""
EXPRESSIONS: tuple[str, ...] = tuple(
    sorted([*_WHOLE.split(), *(f"{name}_{side}" for name in _SIDED.split() for side in "LR")])
)
"""Names of the 57 expression coefficients, in the order every record keeps them."""

EXPRESSION_INDEX: dict[str, int] = {name: i for i, name in enumerate(EXPRESSIONS)}

# The 68 iBUG landmarks as vertices of the mesh; FaceXModel/vertex_indices.json of ICT-FaceKit.
_LANDMARKS = """
1225 1888 1052 367 1719 1722 2199 1447 966 3661 4390 3927 3924 2608 3272 4088 3443 268 493 1914
2044 1401 3615 4240 4114 2734 2509 978 4527 4942 4857 1140 2075 1147 4269 3360 1507 1542 1537 1528
1518 1511 3742 3751 3756 3721 3725 3732 5708 5695 2081 0 4275 6200 6213 6346 6461 5518 5957 5841
5702 5711 5533 6216 6207 6470 5517 5966
"""
LANDMARKS = np.array(_LANDMARKS.split(), np.int32)

_CURE = (
    "give the packed .npz or a checkout of https://github.com/ICT-VGL/ICT-FaceKit "
    "(the folder that holds FaceXModel)"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Facekit:
    """A head mesh with linear shapes, in centimetres; x to the picture's right, y up, z forward."""

    neutral: Float32[np.ndarray, "v 3"]
    expressions: Float32[np.ndarray, "57 v 3"]  # offsets, in the order of EXPRESSIONS
    identities: Float32[np.ndarray, "k v 3"]  # offsets for standard normal coefficients
    triangles: Int32[np.ndarray, "n 3"]
    materials: Int32[np.ndarray, " n"]  # index into material_names, one a triangle
    material_names: tuple[str, ...]
    landmarks: Int32[np.ndarray, " 68"]

    def of(self, *names: str) -> np.ndarray:
        """Which triangles are made of one of the named materials: bool (n,)."""
        wanted = [i for i, name in enumerate(self.material_names) if name in names]
        return np.isin(self.materials, wanted)


def load_facekit(path: str | Path) -> Facekit:
    """The facekit in a packed npz file or in a checkout of ICT-FaceKit (`FaceXModel/*.obj`).

    Raises InputError when the path is neither, or a shape is missing or of another topology.
    """
    path = Path(path)
    if path.is_dir():
        return _from_checkout(path)
    if not path.is_file():
        raise InputError(f"{path}: no such facekit; {_CURE}")
    return _from_npz(path)


def _from_npz(path: Path) -> Facekit:
    try:
        with np.load(path, allow_pickle=False) as packed:
            names = [str(name) for name in packed["ex"]]
            missing = sorted(set(EXPRESSIONS) - set(names))
            if missing:
                raise InputError(f"{path}: no expression shape {missing[0]}; {_CURE}")
            order = [names.index(name) for name in EXPRESSIONS]
            return Facekit(
                neutral=packed["V0"].astype(np.float32),
                expressions=packed["E"][order].astype(np.float32),
                identities=packed["I"].astype(np.float32),
                triangles=packed["F"].astype(np.int32),
                materials=packed["M"].astype(np.int32),
                material_names=tuple(str(name) for name in packed["mats"]),
                landmarks=LANDMARKS,
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a packed facekit ({error}); {_CURE}") from None


def _from_checkout(folder: Path) -> Facekit:
    model = folder / "FaceXModel" if (folder / "FaceXModel").is_dir() else folder
    neutral_path = _shape_file(model, "generic_neutral_mesh")
    neutral, triangles, materials, names = read_obj(neutral_path)
    if len(neutral) <= LANDMARKS.max():
        raise InputError(f"{neutral_path}: {len(neutral)} vertices are too few; {_CURE}")
    found = {re.sub(r"\.obj(\.gz)?$", "", p.name) for p in model.glob("identity*.obj*")}
    if not found:
        raise InputError(f"{model}: no identity*.obj; {_CURE}")
    return Facekit(
        neutral=neutral,
        expressions=np.stack([_offsets(model, name, neutral) for name in EXPRESSIONS]),
        identities=np.stack([_offsets(model, name, neutral) for name in sorted(found)]),
        triangles=triangles,
        materials=materials,
        material_names=names,
        landmarks=LANDMARKS,
    )


def _shape_file(model: Path, name: str) -> Path:
    for suffix in (".obj", ".obj.gz"):
        if (model / (name + suffix)).is_file():
            return model / (name + suffix)
    raise InputError(f"{model}: no {name}.obj; {_CURE}")


def _offsets(model: Path, name: str, neutral: np.ndarray) -> np.ndarray:
    path = _shape_file(model, name)
    vertices = _vertices(_text(path), path)
    if vertices.shape != neutral.shape:
        raise InputError(f"{path}: {len(vertices)} vertices instead of {len(neutral)}; {_CURE}")
    return vertices - neutral


def _text(path: Path) -> list[str]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8", "replace").splitlines()
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_CURE}") from None


def _vertices(lines: list[str], path: Path) -> np.ndarray:
    try:
        rows = [line.split()[1:4] for line in lines if line.startswith("v ")]
        return np.array(rows, np.float32).reshape(-1, 3)
    except ValueError:
        raise InputError(f"{path}: a vertex line is not three numbers; {_CURE}") from None


def read_obj(
    path: Path,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """A Wavefront OBJ file: vertices (v,3), triangles (n,3), material (n,), material names.

    Faces of more than three corners become fans; texture and normal indices are dropped.
    Raises InputError when the file cannot be read or a line is malformed.
    """
    lines = _text(path)
    vertices = _vertices(lines, path)
    triangles: list[tuple[int, int, int]] = []
    materials: list[int] = []
    names: list[str] = []
    current = 0
    for line in lines:
        if line.startswith("usemtl"):
            name = line.split(maxsplit=1)[1].strip()
            if name not in names:
                names.append(name)
            current = names.index(name)
        elif line.startswith("f "):
            try:
                corners = [int(corner.split("/")[0]) for corner in line.split()[1:]]
            except ValueError:
                raise InputError(f"{path}: a face line is malformed: {line!r}") from None
            fan = [c - 1 if c > 0 else len(vertices) + c for c in corners]
            triangles += [(fan[0], b, c) for b, c in itertools.pairwise(fan[1:])]
            materials += [current] * (len(fan) - 2)
    faces = np.array(triangles, np.int32).reshape(-1, 3)
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise InputError(f"{path}: a face names a vertex that is not there; {_CURE}")
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.argsort(order).astype(np.int32) if names else np.zeros(1, np.int32)
    return vertices, faces, rank[np.array(materials, np.int32)], tuple(sorted(names))
