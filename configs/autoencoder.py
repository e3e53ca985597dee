"""The motion latent: motion encoder and image half of the renderer, trained together.

X-NeMo's first stage (its authors publish no training code; sizes of `full` are the released
networks', batch and learning rate those of two systems descended from it, the rest our defaults).

    python -m xactor_jax.main --config=configs/autoencoder.py:tiny --workdir=runs/autoencoder

On two CPU cores tiny does 3 steps a second after the first few hundred, two and a quarter hours in
all. MODEL_CARD.md has the two commands behind the released weights, the README what they reach.

`SLICES` names the devices that each size is meant for; `python -m xactor_jax.plan` says what it
needs on them or on others.
"""

from ml_collections import ConfigDict

from configs.common import base, check_size
from configs.renderer import RENDERERS, renderer

SLICES = {"tiny": "cpu:1", "tiny_dit": "cpu:1", "full": "v5e:4x4", "full_dit": "v5e:4x4"}


def get_config(size: str = "full") -> ConfigDict:
    """`tiny` trains on two CPU cores, `full` on accelerators; `_dit` has transformers."""
    check_size(size, RENDERERS)
    config = base("autoencoder")
    config.renderer = ConfigDict(renderer(size))
    config.face_decoder = ConfigDict({"grid": 4, "channels": (128, 64, 32)})
    config.loss = ConfigDict(
        {
            "flow": 1.0,
            "level_mean": 2.5,
            "level_deviation": 1.2,
            "mouth": 8.0,
            "latent_noise": 0.05,
            "drop_box": 0.15,
            "drop_condition": 0.1,
            "decoder": 1.0,
            "invariance": 0.45,
            "centre": 0.05,
            "whiteness": 0.02,
            "truth": 1.0,
            "emphasis": 4.0,
            "codec": 1.0,
            "least_copying": 0.3,
        }
    )
    config.data = ConfigDict(
        {
            "folders": ("data/footage", "data/actors"),
            "targets": 4,
            "other_crops": 1,
            "footage_share": 0.5,
            "cross_identity": 0.75,
            "kept_segments": 0,
        }
    )
    if size.startswith("tiny"):
        config.steps, config.batch_size = 24_000, 4
        config.log_every, config.save_every, config.evaluate_every = 50, 500, 2_000
        config.read_threads, config.weights_dtype = 2, "float16"
        config.face_decoder.channels = (96, 48, 24)
        config.loss.drop_condition, config.loss.picture, config.loss.moved = 0.0, 1.0, 3.0
        config.data.kept_segments = 2_000
        config.data.targets = 3  # many small steps teach such a network more than few large ones
        config.optimizer.update(
            {
                "learning_rate": 5e-4,
                "warmup_steps": 100,
                "schedule": "cosine",
                "weight_decay": 1e-3,
                # To 1e-4; from 2.5e-4 on the U-Nets' features run away (optim.py).
                "slowed": ("renderer/denoiser", "renderer/reference_network"),
                "ema_decay": 0.999,
            }
        )
    return config
