"""What the motion latent and the renderer are held to: the terms of the autoencoder's loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce
from jaxtyping import Array, Bool, Float

_SHRINKAGE = 0.03  # see `invariance`
_SCALES = 4  # see `moved_error`


def weighted_error(
    pictures: Float[Array, "b t h w 3"],
    truth: Float[Array, "b t h w 3"],
    where: Float[Array, "b t h w"],
    counts: Float[Array, "b t"],
) -> Float[Array, ""]:
    """Mean squared error, with a weight of every pixel and one of every frame."""
    error = jnp.mean(where[..., None] * (pictures - truth) ** 2, axis=(2, 3, 4))
    return jnp.mean(counts * error)


def moved_error(
    moved: Float[Array, "b t h w 3"],
    truth: Float[Array, "b t h w 3"],
    counts: Float[Array, "b t"],
) -> Float[Array, ""]:
    """Squared error of the reference as it was moved, mean over scales from whole to an eighth.

    The rest of the network makes good what the flow leaves, blurred and doubled: the flow must want
    to explain all it can. Coarse pictures tell it where to go when edges lie further apart than a
    pixel (the pyramid of Siarohin et al., arXiv 2003.00196, on pixels).
    """
    errors = []
    for _ in range(_SCALES):
        errors.append(jnp.mean(counts * jnp.mean((moved - truth) ** 2, axis=(2, 3, 4))))
        moved, truth = (
            reduce(x, "b t (h p) (w q) c -> b t h w c", "mean", p=2, q=2) for x in (moved, truth)
        )
    return jnp.mean(jnp.stack(errors))


def latent_losses(
    motion: Float[Array, "b t d"], again: Float[Array, "b t d"], is_footage: Bool[Array, " b"]
) -> tuple[dict[str, Array], Float[Array, ""]]:
    """What the motion latent is held to, and its deviation about the centre of its source."""
    centres = centres_of(motion, is_footage)
    variance = jnp.mean((motion - centres[:, None]) ** 2)
    losses = {
        "invariance": invariance(motion, again, centres),
        "centre": jnp.mean(centres**2),
        "whiteness": whiteness(motion - centres[:, None], variance),
    }
    return losses, jnp.sqrt(jax.lax.stop_gradient(variance))


def centres_of(motion: Float[Array, "b t d"], is_footage: Bool[Array, " b"]) -> Float[Array, "b d"]:
    """For each example the mean latent of the batch's examples of its source.

    Left alone, most of a latent tells footage from actors, and what moves is a hundredth of it:
    variances are taken about these centres, and a loss draws the centres to zero.
    """
    same = (is_footage[:, None] == is_footage).astype(motion.dtype)
    return same @ jnp.mean(motion, axis=1) / jnp.sum(same, axis=1, keepdims=True)


def invariance(
    motion: Float[Array, "b t d"],
    again: Float[Array, "b t d"],
    centres: Float[Array, "b d"],
) -> Float[Array, ""]:
    """Squared distance of two latents of one motion, in units of the latents' covariance.

    In units of their variance alone, identity stays where latents hardly vary, and a linear probe
    reads it there. The covariance takes part in the gradient: shrinking every latent must gain
    nothing. Of few latents it says little, so a part of it is the variance in every direction.

    Args:
      again: latents of a second crop of each example's first motions.
      centres: what the latents of each example vary about.
    """
    both = jnp.concatenate([motion, again], axis=1) - centres[:, None]
    rows = rearrange(both, "b t d -> (b t) d")
    covariance, width = rows.T @ rows / len(rows), rows.shape[1]
    variance = jnp.trace(covariance) / width + 1e-12
    mixed = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * variance * jnp.eye(width)
    apart = rearrange(motion[:, : again.shape[1]] - again, "b t d -> (b t) d")
    return jnp.mean(apart * jnp.linalg.solve(mixed, apart.T).T)


def whiteness(motion: Float[Array, "b t d"], variance: Float[Array, ""]) -> Float[Array, ""]:
    """How far the covariance of centred latents is from `variance` times the identity.

    Otherwise the latent keeps to the one or two directions that it found first, mostly the mouth.
    The covariance term of VICReg (Bardes et al., arXiv 2105.04906), with its diagonal.
    """
    rows = rearrange(motion, "b t d -> (b t) d") / jnp.sqrt(variance + 1e-12)
    covariance = rows.T @ rows / len(rows)
    return jnp.sum((covariance - jnp.eye(rows.shape[1])) ** 2) / rows.shape[1]


def reading_error(
    read: Float[Array, "b t m"],
    truth: Float[Array, "b t m"],
    known: Bool[Array, " b"],
    mean: Float[Array, " m"],
    deviation: Float[Array, " m"],
    weight: Float[Array, " m"],
) -> Float[Array, ""]:
    """Weighted mean squared error of the standardised truth, over examples where it is known."""
    error = jnp.mean(weight * (read - (truth - mean) / deviation) ** 2, axis=(1, 2))
    return jnp.sum(known * error) / jnp.maximum(jnp.sum(known), 1)


def by_source(
    copying: Float[np.ndarray, "n t"], is_footage: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " 2"]:
    """Mean error of copying the reference, of actors and of footage.

    Where one has none it is the other's, and 1 where neither has.
    """
    found = [copying[is_footage == source] for source in (False, True)]
    means = [float(errors.mean()) if len(errors) else 0.0 for errors in found]
    return np.array([mean or max(means) or 1.0 for mean in means], np.float32)


def frame_weights(
    copying: Float[Array, "b t"],
    usual: Float[Array, " 2"],
    is_footage: Bool[Array, " b"],
    least: float,
) -> Float[Array, "b t"]:
    """Weights that make the squared error of a frame nearly a share of what copying it misses.

    PSNR counts such shares: a frame like its reference must be left as it is, and an actor who
    turns the head, with errors seven times those of footage, must not drown the mouths of footage.

    Args:
      copying: squared error of each frame if the reference is repeated.
      usual: its mean for actors and for footage (`by_source`).
      is_footage: the source of each example.
      least: share of the mean that is added to every `copying`, so that no weight is too large.

    Returns:
      Weights about the square root of the product of `usual`, over `copying`.
    """
    usual_here = usual[is_footage.astype(int)][:, None]
    shares = (1 + least) / (copying / usual_here + least)
    return shares * jnp.sqrt(jnp.prod(usual)) / usual_here
