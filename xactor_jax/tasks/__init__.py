"""What can be learnt; the training loop knows a task only by the methods of `train.Task`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import jax

from xactor_jax.errors import InputError
from xactor_jax.train import Objective, Task

if TYPE_CHECKING:
    from xactor_jax.models.renderer import RendererConfig


class ShapedObjective(Objective, Protocol):
    """An objective that knows the shapes of its data, and what is made with the network."""

    @property
    def example_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of one training example."""
        ...

    @property
    def parts(self) -> int:
        """Frames or chunks of a window, which the mesh's context axis divides."""
        ...

    @property
    def frozen_shapes(self) -> Any:
        """Shapes of `Task.frozen`."""
        ...

    @property
    def samples(self) -> bool:
        """Whether evaluation makes anything by `sampler`, or takes losses alone."""
        ...

    def sampler(self, params: Any, frozen: Any, batch: dict[str, jax.Array], key: Any) -> Any:
        """What the network is trained for, made from examples; pure, traced by jit."""
        ...


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


def make_objective(config: Any, renderer: RendererConfig | None = None) -> ShapedObjective:
    """What a config's task learns, made without data: for plans and tests.

    renderer: that of the autoencoder which the motion and video tasks start from; by default as the
      weights file `config.renderer` says.
    """
    match config.task:
        case "autoencoder":
            from xactor_jax.tasks.autoencoder import AutoencoderObjective

            return AutoencoderObjective(config)
        case "motion":
            from xactor_jax.release import renderer_at
            from xactor_jax.tasks.motion import hearing_of
            from xactor_jax.tasks.motion_objective import MotionObjective

            encoder = (renderer or renderer_at(config.renderer).config).encoder
            return MotionObjective(config, encoder.latent, hearing_of(config))
        case "video":
            from xactor_jax.tasks.video import VideoObjective, image_half

            if renderer is None:
                renderer = image_half(config.renderer)[1]
            return VideoObjective(config, renderer)
    raise InputError(f"config.task={config.task!r}: use autoencoder, motion or video")
