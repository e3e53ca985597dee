"""Video: temporal layers on the frozen image half of the renderer.

X-NeMo's second stage (sizes of `full` as released; batch and learning rate those of two systems
descended from it, the rest our defaults).

    python -m xactor_jax.main --config=configs/video.py:tiny --workdir=runs/video \\
        --config.renderer=runs/autoencoder/model.safetensors

`SLICES` names the devices that each size is meant for; `python -m xactor_jax.plan` says what it
needs on them or on others. A window of `full` on each of eight chips does not fit those of v5e.
"""

from ml_collections import ConfigDict

from configs.common import base, check_size

SLICES = {"tiny": "cpu:1", "full": "v6e:2x4"}


def get_config(size: str = "full") -> ConfigDict:
    """`tiny` trains on two CPU cores, `full` on accelerators."""
    check_size(size)
    config = base("video")
    config.renderer = ""  # weights of the autoencoder
    config.steps, config.batch_size = 20_000, 8
    # How the denoiser of those weights is computed: the file does not say.
    config.denoiser = ConfigDict({"dtype": "bfloat16", "rematerialise": True})
    config.loss = ConfigDict(
        {
            "level_mean": 1.5,
            "level_deviation": 1.2,
            "mouth": 5.0,
            "latent_noise": 0.1,
            "drop_box": 0.15,
            "shared_noise": 1.0,
        }
    )
    config.data = ConfigDict(
        {
            "folders": ("data/footage", "data/actors"),
            "targets": 24,  # frames of a window
            "footage_share": 0.5,
            "cross_identity": 0.25,
            "kept_segments": 0,
        }
    )
    if size == "tiny":
        config.steps, config.batch_size = 1_000, 2
        config.log_every, config.save_every, config.evaluate_every = 20, 200, 500
        config.read_threads, config.weights_dtype = 2, "float16"
        config.data.targets = 16
        config.data.kept_segments = 2_000
        config.denoiser.update({"dtype": "float32", "rematerialise": False})
        config.optimizer.update(
            {
                "learning_rate": 1e-3,
                "warmup_steps": 50,
                "schedule": "cosine",
                "weight_decay": 1e-3,
                "ema_decay": 0.995,
            }
        )
    return config
