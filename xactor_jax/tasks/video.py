"""Learn how frames follow each other: temporal layers on the frozen image half of the renderer."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.checkpoint import config_of, load_kind, save_weights
from xactor_jax.config import build, released
from xactor_jax.data.examples import FaceExampleConfig, FaceExamples, example_shapes
from xactor_jax.diffusion.noise_levels import logit_normal
from xactor_jax.errors import InputError
from xactor_jax.evaluation.pictures import mouth_weights
from xactor_jax.models.renderer import NEUTRAL_BOX, Renderer, RendererConfig
from xactor_jax.nn.layers import abstract, initial_keys
from xactor_jax.sharding import check_context
from xactor_jax.tasks.reenactment import (
    encode_latents,
    encode_motion,
    render_examples,
    rendering,
    save_strips,
    score,
    see,
)

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoLoss:
    """Weights and probabilities of the loss; every value is our default, none is published."""

    level_mean: float = 1.5  # noise level = sigmoid(mean + deviation n)
    level_deviation: float = 1.2
    mouth: float = 5.0
    latent_noise: float = 0.1  # of the latents' root mean square: acted motion jitters
    drop_box: float = 0.15
    shared_noise: float = 1.0  # share of windows whose frames start from one picture of noise


class VideoObjective:
    """What is learnt, without the data: parameters, their loss, and shapes of all that it reads."""

    samples = True

    def __init__(self, config: Any, image: RendererConfig):
        try:
            denoiser = dataclasses.replace(
                image.denoiser,
                temporal=True,
                max_frames=config.data.targets,
                **config.denoiser.to_dict(),
            )
        except TypeError as error:  # such as scan, which a U-Net does not have
            raise InputError(f"config.denoiser: {error}") from None
        self.renderer = dataclasses.replace(image, denoiser=denoiser)
        self.weights = build(VideoLoss, config.loss.to_dict())
        self.data = FaceExampleConfig(
            image_size=image.image_size,
            view_scale=image.view_scale,
            crop_size=image.encoder.image_size,
            other_crops=1,  # nothing here reads it, but an example has at least one
            consecutive=True,
            **config.data.to_dict(),
        )
        model = abstract(lambda rngs: Renderer(self.renderer, rngs=rngs))
        self.graph = nnx.split(model, nnx.Param, ...)[0]

    @property
    def example_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of one training example."""
        return example_shapes(self.data)

    @property
    def parts(self) -> int:
        """Frames of a window, which the mesh's context axis divides."""
        return self.data.targets

    @functools.cached_property
    def frozen_shapes(self) -> Any:
        """Shapes of the image half, which the loss reads and training never changes."""
        denoiser = dataclasses.replace(self.renderer.denoiser, temporal=False)
        image = dataclasses.replace(self.renderer, denoiser=denoiser)
        model = abstract(lambda rngs: Renderer(image, rngs=rngs))
        _, params, statistics = nnx.split(model, nnx.Param, ...)
        return {
            "params": nnx.to_pure_dict(params),
            "statistics": nnx.to_pure_dict(statistics),
        }

    def init(self, key: PRNGKeyArray) -> Any:
        """New parameters of the temporal modules, which at first change nothing."""
        model = Renderer(self.renderer, rngs=initial_keys(key))
        return temporal_part(nnx.to_pure_dict(nnx.state(model, nnx.Param)))

    def _merge(self, params: Any, frozen: Any) -> Renderer:
        whole = join(frozen["params"], params)
        return nnx.merge(self.graph, whole, nnx.State(frozen["statistics"]))

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Velocity loss of whole windows; only the temporal modules learn."""
        check_context(self.parts, "frames of a window")
        model, weights = self._merge(params, frozen), self.weights
        level_key, noise_key, latent_key, box_key, share_key = jax.random.split(key, 5)
        target = encode_latents(model, batch["target"])
        motion = encode_motion(model, batch["driving"])
        size = jnp.sqrt(jnp.mean(motion**2))
        motion += weights.latent_noise * size * jax.random.normal(latent_key, motion.shape)
        b = len(target)
        dropped = jax.random.bernoulli(box_key, weights.drop_box, (b, 1, 1))
        box = jnp.where(dropped, jnp.asarray(NEUTRAL_BOX), batch["box"])

        level = logit_normal(level_key, (b,), weights.level_mean, weights.level_deviation)
        noise = jax.random.normal(noise_key, target.shape)
        shared = jax.random.bernoulli(share_key, weights.shared_noise, (b, 1, 1, 1, 1))
        noise = jnp.where(shared, noise[:, :1], noise)
        flow = self.renderer.flow
        z = flow.corrupt(target, noise, level)
        output, _ = model.predict(z, level, see(model, batch), motion, box)
        where = mouth_weights(batch["head_box"], target.shape[2], weights.mouth)
        loss = jnp.mean(flow.squared_error(output, target, noise, level) * where[..., None])
        clean = flow.sample(output, z, level)
        change = jnp.mean(jnp.abs(jnp.diff(clean, axis=1)))
        truth = jnp.mean(jnp.abs(jnp.diff(target, axis=1)))
        return loss, {"change_ratio": change / truth}

    def sampler(self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray) -> Array:
        """Frames of whole windows, as evaluation renders them."""
        return render_examples(self._merge(params, frozen), batch, key)


class VideoTask(VideoObjective):
    """Task `video` of the training loop."""

    def __init__(self, config: Any):
        arrays, image = image_half(config.renderer)
        super().__init__(config, image)
        self.weights_dtype = config.weights_dtype
        self.frozen = {"params": arrays["params"]["renderer"], "statistics": arrays["statistics"]}
        self.examples = FaceExamples(self.data)
        self.held_out = FaceExamples(dataclasses.replace(self.data, augment=False), held_out=True)

    def learnt_part(self, params: Any) -> Any:
        """The temporal modules among the parameters that `export` writes."""
        return temporal_part(params.get("renderer", {}))

    def source(self) -> FaceExamples:
        """The index of windows."""
        return self.examples

    def load(self, element: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Read, crop and augment one window."""
        return self.examples.load(element, rng)

    def evaluate(self, params: Any, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        """PSNR and change between frames on held-out windows."""
        return score(self.held_out, rendering(self.sampler, params, frozen, key), 8)

    def sample(self, params: Any, frozen: Any, key: PRNGKeyArray, folder: Path) -> None:
        """Strips of every fourth frame of held-out windows."""
        save_strips(self.held_out, rendering(self.sampler, params, frozen, key), 8, folder)

    def export(self, params: Any, frozen: Any, path: Path) -> None:
        """The whole renderer, temporal modules included."""
        weights = {
            "params": {"renderer": join(frozen["params"], params)},
            "statistics": frozen["statistics"],
        }
        metadata = {"kind": "renderer", "renderer": released(self.renderer)}
        save_weights(path, weights, metadata, self.weights_dtype)


def image_half(path: str) -> tuple[dict, RendererConfig]:
    """An autoencoder's weights and their renderer's config. Raises InputError for other files."""
    if not path:
        raise InputError("config.renderer is empty; give the weights of an autoencoder")
    arrays, metadata = load_kind(Path(path), "renderer")
    image = config_of(Path(path), metadata, "renderer", RendererConfig)
    if image.denoiser.temporal:
        raise InputError(f"{path}: it has temporal layers already; give an autoencoder's weights")
    return arrays, image


def temporal_part(params: Any) -> Any:
    """The part of a nested dict that lies under keys named `temporal`."""
    found = {}
    for key, value in params.items():
        if key == "temporal":
            found[key] = value
        elif isinstance(value, dict) and (inner := temporal_part(value)):
            found[key] = inner
    return found


def join(a: Any, b: Any) -> Any:
    """Two nested dicts that share no leaf, as one."""
    joined = dict(a)
    for key, value in b.items():
        joined[key] = join(a[key], value) if key in a else value
    return joined
