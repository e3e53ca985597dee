"""The small codec: an isometry onto principal components, and their projection back."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from xactor_jax.models.vae import PatchCodec, PatchCodecConfig, fit_basis
from xactor_jax.nn.patches import from_patches, to_patches

CONFIG = PatchCodecConfig(factor=4, channels=5, hidden=4, scale=0.5)
DRAW = np.random.default_rng(0)
PICTURES = DRAW.uniform(-1, 1, size=(2, 8, 12, 3)).astype(np.float32)
BASIS = np.linalg.qr(DRAW.normal(size=(48, 5)))[0].astype(np.float32)
MEAN = DRAW.normal(size=48).astype(np.float32)


@pytest.fixture(scope="module")
def codec():
    codec = PatchCodec(CONFIG, rngs=nnx.Rngs(0))
    codec.basis[...], codec.mean[...] = jnp.asarray(BASIS), jnp.asarray(MEAN)
    return codec


def patches(pictures):
    """Each picture's 4x4 patches, cut by hand, as rows of 48 numbers."""
    return np.stack(
        [
            picture[y : y + 4, x : x + 4].ravel()
            for picture in pictures
            for y in range(0, picture.shape[0], 4)
            for x in range(0, picture.shape[1], 4)
        ]
    )


def test_patches_are_laid_out_and_put_back():
    cut = to_patches(PICTURES, 4)
    assert cut.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(cut.reshape(-1, 48), patches(PICTURES))
    np.testing.assert_array_equal(from_patches(cut, 4), PICTURES)


def test_distances_of_latents_are_distances_of_pictures_in_the_subspace(codec):
    inside = (MEAN + DRAW.normal(size=(2, 2, 3, 5)) @ BASIS.T).astype(np.float32)
    pictures = from_patches(inside, 4)
    latents = np.asarray(codec.encode(pictures))
    assert latents.shape == (2, 2, 3, 5)
    between = np.linalg.norm(latents[0] - latents[1])
    np.testing.assert_allclose(between, 0.5 * np.linalg.norm(pictures[0] - pictures[1]), rtol=1e-5)
    np.testing.assert_allclose(codec.decode(latents), pictures, atol=1e-5)


def test_a_new_codec_projects_onto_its_subspace(codec):
    rows = patches(PICTURES) - MEAN
    # The orthogonal projection by least squares, which needs no orthonormal basis.
    nearest = BASIS @ np.linalg.lstsq(BASIS, rows.T, rcond=None)[0]
    got = codec.decode(codec.encode(PICTURES))
    np.testing.assert_allclose(patches(np.asarray(got)), nearest.T + MEAN, atol=1e-5)


def test_the_learned_detail_looks_at_neighbouring_patches(codec):
    codec.detail.kernel[...] = jnp.asarray(
        DRAW.normal(size=codec.detail.kernel.shape).astype(np.float32)
    )
    latents = np.asarray(codec.encode(PICTURES)).copy()
    before = codec.decode(latents)
    latents[0, 0, 0] += 1
    changed = np.abs(np.asarray(codec.decode(latents) - before)).max(axis=-1) > 1e-4
    assert changed[0, 4:, 4:8].any()
    assert not changed[1].any()
    codec.detail.kernel[...] = jnp.zeros_like(codec.detail.kernel[...])


def test_fitting_finds_a_planted_subspace():
    spread = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    inside = MEAN + (DRAW.normal(size=(20, 4, 4, 5)) * spread) @ BASIS.T
    noisy = inside + 0.01 * DRAW.normal(size=inside.shape)
    fitted = fit_basis(from_patches(noisy.astype(np.float32), 4), CONFIG)
    basis, mean = fitted["basis"], fitted["mean"]
    assert basis.dtype == mean.dtype == np.float32
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-5)
    # Cosines of the angles between both subspaces; the weakest direction is 100 times the noise.
    np.testing.assert_allclose(np.linalg.svd(BASIS.T @ basis)[1], 1, atol=1e-3)
    # Strongest first.
    assert np.all(np.diff(np.std((inside - MEAN).reshape(-1, 48) @ basis, axis=0)) < 0)
    np.testing.assert_allclose(mean, inside.reshape(-1, 48).mean(axis=0), atol=1e-2)
