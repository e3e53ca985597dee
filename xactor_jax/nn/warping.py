"""Moving a picture along a flow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def warp(images: Float[Array, "b h w c"], flow: Float[Array, "b k l 2"]) -> Float[Array, "b h w c"]:
    """Pictures whose pixels come from elsewhere in them, bilinearly, the border repeated.

    Args:
      images: what is looked at; no gradient reaches it.
      flow: where each pixel looks, relative to its own place, as (down, right) in cells of this
        grid, which is drawn up to the size of the pictures.

    Jaderberg et al., "Spatial transformer networks", arXiv 1506.02025, equation 5.
    """
    b, h, w, c = images.shape
    pixels = jnp.asarray([h / flow.shape[1], w / flow.shape[2]])
    offset = jax.image.resize(flow * pixels, (b, h, w, 2), "bilinear")
    row = jnp.clip(jnp.arange(h)[:, None] + offset[..., 0], 0, h - 1)
    column = jnp.clip(jnp.arange(w) + offset[..., 1], 0, w - 1)
    above = jnp.clip(jnp.floor(row), 0, max(h - 2, 0))
    left = jnp.clip(jnp.floor(column), 0, max(w - 2, 0))
    down, right = (row - above)[..., None], (column - left)[..., None]
    flat = jax.lax.stop_gradient(images).reshape(b, h * w, c)

    def pixel(rows: int, columns: int) -> Float[Array, "b h w c"]:
        place = (above + rows).astype(int) * w + (left + columns).astype(int)
        found = jnp.take_along_axis(flat, place.reshape(b, h * w, 1), axis=1)
        return found.reshape(b, h, w, c)

    upper = (1 - right) * pixel(0, 0) + right * pixel(0, 1)
    lower = (1 - right) * pixel(1, 0) + right * pixel(1, 1)
    return (1 - down) * upper + down * lower
