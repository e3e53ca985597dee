"""What can be learnt; the training loop knows a task only by the methods of `train.Task`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xactor_jax.errors import InputError

if TYPE_CHECKING:
    from xactor_jax.train import Task


def make_task(config: Any) -> Task:
    """The task that a config names: autoencoder, motion or video."""
    match config.task:
        case "autoencoder":
            from xactor_jax.tasks.autoencoder import AutoencoderTask

            return AutoencoderTask(config)
        case "motion":
            from xactor_jax.tasks.motion import MotionTask

            return MotionTask(config)
        case "video":
            from xactor_jax.tasks.video import VideoTask

            return VideoTask(config)
    raise InputError(f"config.task={config.task!r}: use autoencoder, motion or video")
