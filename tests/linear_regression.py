"""A linear regression to train, whose loss, gradient and solution have a closed form."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from xactor_jax.checkpoint import save_weights

INPUTS = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
TRUTH = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)


class LinearTask:
    """Fit `kernel` to `INPUTS @ TRUTH` under noise drawn anew in every example and every step.

    `at_evaluation` and `at_export` are called as the loop evaluates and exports.
    """

    def __init__(self, noise=0.1, at_evaluation=None, at_export=None, nan_at=-1):
        self.noise, self.nan_at = noise, nan_at
        self.at_evaluation, self.at_export = at_evaluation, at_export
        self.frozen = {"truth": TRUTH}
        self.state = None

    def init(self, key):
        kernel = 0.1 * jax.random.normal(key, (64, 64))
        return {"layer": {"kernel": kernel, "bias": jnp.zeros(64)}}

    def loss(self, params, frozen, batch, key):
        noise = self.noise * jax.random.normal(key, batch["input"].shape)
        x = batch["input"] + noise
        error = x @ params["layer"]["kernel"] + params["layer"]["bias"] - x @ frozen["truth"]
        loss = jnp.mean(error**2) / jnp.where(jnp.any(batch["broken"]), 0.0, 1.0)
        return loss, {"largest_error": jnp.abs(error).max()}

    def source(self):
        return range(32)

    def load(self, index, rng):
        row = INPUTS[index] + self.noise * rng.normal(size=64).astype(np.float32)
        return {"input": row.astype(np.float32), "broken": np.bool_(index == self.nan_at)}

    def evaluate(self, params, frozen, key):
        if self.at_evaluation:
            self.at_evaluation()
        error = params["layer"]["kernel"] - frozen["truth"]
        return {"distance": float(jnp.linalg.norm(error))}

    def sample(self, params, frozen, key, folder):
        (folder / "picture.txt").write_text("a picture")

    def export(self, params, frozen, path):
        save_weights(path, params, {"kind": "linear"})
        if self.at_export:
            self.at_export()


def make_config(**changes):
    config = ConfigDict(
        {
            "steps": 6,
            "log_every": 1,
            "save_every": 3,
            "keep_last": 2,
            "keep_every": 0,
            "skip_nonfinite": 0,
            "profile_steps": 0,
            "evaluate_every": 3,
            "batch_size": 8,
            "seed": 4,
            "mesh": {"replica": 1, "fsdp": -1, "context": 1, "tensor": 1},
            "initial_weights": "",
            "weights_dtype": "float32",
            "read_threads": 2,
            "read_workers": 0,
            "optimizer": {
                "learning_rate": 1e-2,
                "warmup_steps": 2,
                "schedule": "cosine",
                "weight_decay": 1e-4,
                "b1": 0.9,
                "b2": 0.99,
                "clip_norm": 1.0,
                "slowed": (),
                "ema_decay": 0.99,
                "accumulate": 1,
                "frozen": (),
            },
        }
    )
    config.update_from_flattened_dict(changes)
    return config.lock()


def lines(workdir):
    """The logged steps."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved(workdir, step):
    """Every array of a checkpoint and its meta, read without the state that made it."""
    from orbax.checkpoint import v1 as ocp

    path = workdir / "checkpoints" / str(step)
    shapes = ocp.checkpointables_metadata(path).metadata["state"]
    numpy = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    found = ocp.load_checkpointables(path, {"state": numpy, "meta": None})
    return found["state"], found["meta"]
