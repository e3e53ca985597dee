"""The rasteriser against areas, planes and spheres in closed form."""

import numpy as np
import pytest
from data.tiny_facekit import RADII, egg

from xactor_jax.data import rasteriser

SIZE = 64


def canvas():
    return np.zeros((SIZE, SIZE, 3), np.float32), np.full((SIZE, SIZE), np.inf, np.float32)


def draw(points, colours, triangles, push=None, onto=None):
    image, depth = onto or canvas()
    triangles = np.array(triangles, np.int32)
    push = np.zeros(len(triangles), np.float32) if push is None else np.array(push, np.float32)
    points, colours = np.array(points, np.float32), np.array(colours, np.float32)
    rasteriser.draw(points, colours, triangles, push, image, depth)
    return image, depth


WHITE = [[1, 1, 1]] * 3
RED, GREEN = [[1, 0, 0]] * 3, [[0, 1, 0]] * 3


@pytest.mark.parametrize(
    "corners", [[(3, 5), (60, 11), (20, 58)], [(10.3, 2.7), (40, 8), (33, 61)]]
)
def test_a_triangle_covers_its_area(corners):
    _, depth = draw([(x, y, 1) for x, y in corners], WHITE, [[0, 1, 2]])
    (ax, ay), (bx, by), (cx, cy) = corners
    area = abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 2
    edges = np.linalg.norm(np.diff([*corners, corners[0]], axis=0), axis=1).sum()
    # Counting pixel centres is off by less than half a pixel for each pixel of the outline.
    assert abs(np.isfinite(depth).sum() - area) < edges / 2
    ys, xs = np.nonzero(np.isfinite(depth))
    np.testing.assert_allclose([xs.mean() + 0.5, ys.mean() + 0.5], np.mean(corners, 0), atol=0.3)


def test_two_halves_of_a_square_leave_no_seam():
    points = [(8, 8, 1), (56, 8, 1), (56, 56, 1), (8, 56, 1)]
    _, depth = draw(points, [[1, 1, 1]] * 4, [[0, 1, 2], [0, 2, 3]])
    covered = np.isfinite(depth)
    assert covered[8:56, 8:56].all()
    assert covered.sum() == 48 * 48


def test_colour_and_depth_are_planes():
    points = np.array([(2, 2, 10), (62, 2, 20), (2, 62, 40)], np.float32)
    colours = np.array([(0, 0, 1), (1, 0, 1), (0, 1, 1)], np.float32)
    image, depth = draw(points, colours, [[0, 1, 2]])
    ys, xs = np.nonzero(np.isfinite(depth))
    u, v = (xs + 0.5 - 2) / 60, (ys + 0.5 - 2) / 60
    np.testing.assert_allclose(depth[ys, xs], 10 + 10 * u + 30 * v, atol=1e-3)
    np.testing.assert_allclose(image[ys, xs], np.stack([u, v, np.ones_like(u)], 1), atol=1e-4)


@pytest.mark.parametrize("red_first", [True, False])
def test_the_nearer_triangle_hides_the_farther_one_in_any_order(red_first):
    near, far = [(5, 5, 1), (60, 5, 1), (5, 60, 1)], [(5, 5, 2), (60, 5, 2), (5, 60, 2)]
    order = [(near, RED), (far, GREEN)] if red_first else [(far, GREEN), (near, RED)]
    onto = canvas()
    for points, colours in order:
        draw(points, colours, [[0, 1, 2]], onto=onto)
    covered = np.isfinite(onto[1])
    np.testing.assert_allclose(onto[0][covered][:, 0], 1, atol=1e-5)
    assert not onto[0][covered][:, 1].any()


def test_push_stands_a_triangle_back():
    points = [(5, 5, 1), (60, 5, 1), (5, 60, 1), (5, 5, 1.5), (60, 5, 1.5), (5, 60, 1.5)]
    image, depth = draw(points, RED + GREEN, [[0, 1, 2], [3, 4, 5]], push=[1.0, 0.0])
    np.testing.assert_allclose(image[np.isfinite(depth)][:, 1], 1, atol=1e-5)


def test_the_back_of_a_triangle_and_what_is_outside_are_not_drawn():
    _, depth = draw([(5, 5, 1), (60, 5, 1), (5, 60, 1)], WHITE, [[0, 2, 1]])
    assert not np.isfinite(depth).any()
    _, depth = draw([(-500, -300, 1), (900, -300, 1), (30, 900, 1)], WHITE, [[0, 1, 2]])
    assert np.isfinite(depth).all()


def test_deform_adds_the_weighted_shapes():
    random = np.random.default_rng(0)
    base = random.normal(size=(9, 3)).astype(np.float32)
    dense = np.zeros((3, 9, 3), np.float32)
    dense[0, [1, 4]] = 1.5
    dense[2, [0, 4, 8]] = random.normal(size=(3, 3))
    starts, indices = np.array([0, 2, 2, 5]), np.array([1, 4, 0, 4, 8], np.int32)
    offsets = np.concatenate([dense[0, [1, 4]], dense[2, [0, 4, 8]]])
    weights = np.array([0.5, 1.0, -2.0], np.float32)
    out = np.empty_like(base)
    rasteriser.deform(base, starts, indices, offsets, weights, out)
    np.testing.assert_allclose(out, base + np.einsum("e,evc->vc", weights, dense), rtol=1e-5)


def test_normals_of_a_sphere_point_outwards():
    vertices, triangles = egg()
    sphere = (vertices / RADII).astype(np.float32)
    normals = np.empty_like(sphere)
    rasteriser.vertex_normals(sphere, triangles.astype(np.int32), normals)
    inner = np.abs(sphere[:, 1]) < 0.99  # the poles are open
    assert (normals * sphere).sum(1)[inner].min() > 0.999


def test_resolve_is_the_mean_of_the_samples():
    samples = np.random.default_rng(1).uniform(-0.2, 1.2, (8, 12, 3)).astype(np.float32)
    curve = np.round(np.linspace(0, 255, 1024)).astype(np.uint8)
    picture = np.empty((4, 6, 3), np.uint8)
    rasteriser.resolve(samples, 2, curve, picture)
    mean = np.clip(samples, 0, 1).reshape(4, 2, 6, 2, 3).mean((1, 3)) * 255
    assert np.abs(picture - mean).max() <= 1  # one grey level of rounding
