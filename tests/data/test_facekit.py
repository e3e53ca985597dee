"""The facekit reads the same from a packed file and from a checkout, and says what is missing."""

import numpy as np
import pytest
from data.tiny_facekit import make_facekit, save_checkout, save_npz

from xactor_jax.data.facekit import EXPRESSIONS, load_facekit, read_obj
from xactor_jax.errors import InputError

SQUARE = """# two materials, a quad, a triangle counted from the end
mtllib x.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0.5
vt 0 0
vn 0 0 1
usemtl second
f 1/1/1 2/1/1 3/1/1 4/1/1
usemtl first
f -4 -3 -2
"""


@pytest.fixture(scope="module")
def kit():
    return make_facekit()


@pytest.fixture(scope="module")
def checkout(kit, tmp_path_factory):
    return save_checkout(kit, tmp_path_factory.mktemp("public") / "ICT-FaceKit")


def test_obj_has_its_vertices_fans_and_materials(tmp_path):
    path = tmp_path / "square.obj"
    path.write_text(SQUARE)
    vertices, triangles, materials, names = read_obj(path)
    np.testing.assert_array_equal(vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]])
    np.testing.assert_array_equal(triangles, [[0, 1, 2], [0, 2, 3], [0, 1, 2]])
    assert [names[m] for m in materials] == ["second", "second", "first"]


@pytest.mark.parametrize("line", ["v 1 two 3", "f 1 2 9", "f 1 b 3"])
def test_a_damaged_obj_is_named(tmp_path, line):
    path = tmp_path / "damaged.obj"
    path.write_text(SQUARE + line + "\n")
    with pytest.raises(InputError, match=r"damaged\.obj"):
        read_obj(path)


def test_checkout_and_npz_are_the_same_face(tmp_path, kit, checkout):
    packed = load_facekit(save_npz(kit, tmp_path / "kit.npz"))
    for one in (packed, load_facekit(checkout)):
        # fp16 offsets of up to 3 cm and six decimals of text: below a hundredth of a millimetre
        np.testing.assert_allclose(one.neutral, kit.neutral, atol=1e-5)
        np.testing.assert_allclose(one.expressions, kit.expressions, atol=1e-3)
        np.testing.assert_allclose(one.identities, kit.identities, atol=1e-3)
        assert sorted(map(tuple, one.triangles)) == sorted(map(tuple, kit.triangles))
        for name in kit.material_names:
            assert one.of(name).sum() == kit.of(name).sum()


def test_there_are_57_expressions_in_a_fixed_order():
    assert len(EXPRESSIONS) == len(set(EXPRESSIONS)) == 57
    assert list(EXPRESSIONS) == sorted(EXPRESSIONS)
    assert {"jawOpen", "mouthClose", "eyeBlink_L", "eyeBlink_R"} <= set(EXPRESSIONS)


def test_what_is_missing_is_named(tmp_path, checkout):
    with pytest.raises(InputError, match=r"nowhere\.npz"):
        load_facekit(tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(InputError, match=r"text\.npz"):
        load_facekit(tmp_path / "text.npz")
    with pytest.raises(InputError, match=r"generic_neutral_mesh\.obj"):
        load_facekit(tmp_path)
    (tmp_path / "FaceXModel").mkdir()
    for name in ("generic_neutral_mesh", "identity000"):
        file = checkout / "FaceXModel" / f"{name}.obj"
        (tmp_path / "FaceXModel" / f"{name}.obj").write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"PupilDilate_L\.obj"):
        load_facekit(tmp_path)
