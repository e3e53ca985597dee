"""Fields that every training has; see xactor_jax/train.py."""

from ml_collections import ConfigDict


def base(task: str) -> ConfigDict:
    """Loop, mesh and optimizer; the values are those of a full-size training."""
    return ConfigDict(
        {
            "task": task,
            "steps": 300_000,
            "log_every": 100,
            "save_every": 5_000,
            "keep_last": 2,  # checkpoints
            "keep_every": 0,  # ... and those of every so many steps, a multiple of save_every
            "evaluate_every": 10_000,
            "batch_size": 32,  # examples of all processes together
            "seed": 0,
            "skip_nonfinite": 0,  # steps to leave out, in all, before a NaN stops the training
            "profile_steps": 0,  # steps to trace into the workdir's profile/
            "mesh": {"replica": 1, "fsdp": -1, "context": 1, "tensor": 1},
            "optimizer": {
                "learning_rate": 1e-5,
                "warmup_steps": 1_000,
                "schedule": "constant",  # or "cosine"
                "weight_decay": 1e-2,  # of matrices
                "b1": 0.9,
                "b2": 0.99,
                "clip_norm": 1.0,
                "ema_decay": 0.9999,
                "accumulate": 1,
                "frozen": (),  # parts of the parameters, such as ("renderer/encoder",)
                "slowed": (),  # parts that learn at slowed_to times the learning rate
                "slowed_to": 0.2,
            },
            "initial_weights": "",  # a weights file of the same task to start from
            "weights_dtype": "float32",  # how exported weights are stored; or "float16"
            "read_threads": 8,
            "read_workers": 0,
        }
    )


def check_size(size: str, sizes: tuple[str, ...] = ("tiny", "full")) -> None:
    """Raise ValueError for a size that a config does not have."""
    if size not in sizes:
        raise ValueError(f"size {size!r}: use {' or '.join(sizes)}")
