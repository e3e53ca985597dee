"""A first lesson for the motion encoder: known motion, before anything is rendered.

Most of a step of configs/autoencoder.py is the renderer's, which has little to learn from a latent
that says little yet. Here the encoder learns alone, several times as fast, from what actors are
known to do, from pairs of actors in one motion, and from a small decoder of coarse faces. Then:

    python -m xactor_jax.main --config=configs/encoder.py:tiny --workdir=runs/encoder
    python -m xactor_jax.main --config=configs/autoencoder.py:tiny --workdir=runs/autoencoder \\
        --config.initial_weights=runs/encoder/model.safetensors

Our own addition; X-NeMo trains its encoder with the renderer from the start. `SLICES` names the
devices that each size is meant for; `python -m xactor_jax.plan` says what it needs.
"""

from ml_collections import ConfigDict

from configs import autoencoder

SLICES = autoencoder.SLICES


def get_config(size: str = "full") -> ConfigDict:
    """The sizes of configs/autoencoder.py."""
    config = autoencoder.get_config(size)
    config.loss.update({"flow": 0.0, "picture": 0.0, "moved": 0.0, "codec": 0.0})
    config.loss.invariance = 0.02  # more of it, so early, and only the first few motions are found
    config.optimizer.frozen = ("renderer/denoiser", "renderer/reference_network")
    config.data.footage_share = 0.25  # footage has no known motion
    if size.startswith("tiny"):
        config.steps, config.batch_size = 6_000, 8
        config.optimizer.update({"learning_rate": 1e-3, "slowed": ()})
    return config
