"""Pictures that move along a flow, against shifts done by indexing."""

import jax
import jax.numpy as jnp
import numpy as np

from xactor_jax.nn.warping import warp

DRAW = np.random.default_rng(0)
IMAGES = DRAW.uniform(size=(2, 8, 12, 3)).astype(np.float32)


def everywhere(down: float, right: float, cells=(2, 3)):
    return np.broadcast_to(np.float32([down, right]), (2, *cells, 2))


def test_no_flow_changes_nothing():
    np.testing.assert_allclose(warp(IMAGES, everywhere(0, 0)), IMAGES, atol=1e-6)


def test_flow_is_in_cells_of_its_own_grid():
    # Cells are four pixels: each pixel looks two up and one to the right, the border repeated.
    rows = np.clip(np.arange(8) - 2, 0, 7)
    columns = np.clip(np.arange(12) + 1, 0, 11)
    moved = warp(IMAGES, everywhere(-0.5, 0.25))
    np.testing.assert_allclose(moved, IMAGES[:, rows][:, :, columns], atol=1e-6)


def test_between_pixels_colours_are_mixed():
    moved = warp(IMAGES, everywhere(0, 0.125))  # half a pixel
    np.testing.assert_allclose(
        moved[:, :, :-1], (IMAGES[:, :, 1:] + IMAGES[:, :, :-1]) / 2, atol=1e-6
    )
    np.testing.assert_allclose(moved[:, :, -1], IMAGES[:, :, -1], atol=1e-6)


def test_cells_move_by_themselves():
    flow = np.zeros((2, 8, 12, 2), np.float32)  # a cell a pixel: no interpolation of the flow
    flow[:, 5, 7] = -3, 2
    moved = np.array(warp(IMAGES, flow))
    np.testing.assert_allclose(moved[:, 5, 7], IMAGES[:, 2, 9], atol=1e-6)
    moved[:, 5, 7] = IMAGES[:, 5, 7]
    np.testing.assert_allclose(moved, IMAGES, atol=1e-6)


def test_the_flow_learns_on_a_ramp_and_the_picture_does_not():
    ramp = np.broadcast_to(3.0 * np.arange(8, dtype=np.float32)[:, None, None], (1, 8, 12, 1))

    def mean_inside(images, flow):
        return jnp.mean(warp(images, flow)[:, 2:6])

    flow = np.full((1, 1, 1, 2), 0.05, np.float32)  # 0.4 of a pixel down
    of_images, of_flow = jax.grad(mean_inside, argnums=(0, 1))(ramp, flow)
    # A cell of 8 pixels on a ramp of 3 a pixel.
    np.testing.assert_allclose(of_flow[0, 0, 0], [24, 0], atol=1e-4)
    np.testing.assert_array_equal(of_images, 0)
