"""Learn the motion latent: motion encoder and image half of the renderer, together.

An example is a reference frame of a person, other frames of the same clip as targets, and driving
crops that show the targets' motion: of the same frames or, for synthetic actors, of another
identity in the same motion. What differs between two crops of one motion (identity, colour, place)
must not reach the latent; a second crop of the same motion is encoded to say so.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.checkpoint import save_weights
from xactor_jax.config import build
from xactor_jax.data.examples import FaceExampleConfig, FaceExamples
from xactor_jax.diffusion.noise_levels import logit_normal
from xactor_jax.errors import InputError
from xactor_jax.evaluation.pictures import mouth_weights, to_signed
from xactor_jax.models.face_decoder import FaceDecoder, FaceDecoderConfig
from xactor_jax.models.renderer import NEUTRAL_BOX, Renderer, RendererConfig
from xactor_jax.models.vae import fit_basis
from xactor_jax.nn.layers import abstract, initial_keys
from xactor_jax.tasks.reenactment import (
    Render,
    encode_latents,
    render_examples,
    save_strips,
    score,
)

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderLoss:
    """Weights and probabilities of the loss; every value is our default, none is published."""

    level_mean: float = 1.5  # noise level = sigmoid(mean + deviation n)
    level_deviation: float = 1.2
    mouth: float = 5.0  # weight of the mouth against the rest of the picture
    latent_noise: float = 0.05  # of the latents' root mean square
    drop_box: float = 0.15  # head box replaced by (0, 0, 1)
    drop_condition: float = 0.0  # reference tokens dropped and motion replaced by the reference's
    decoder: float = 1.0  # weight of the face decoder's picture
    invariance: float = 0.005  # weight of the distance between two crops of one motion
    codec: float = 1.0  # weight of the codec's own reconstruction


class AutoencoderTask:
    """Task `autoencoder` of the training loop."""

    def __init__(self, config: Any):
        self.renderer = build(RendererConfig, config.renderer.to_dict())
        if self.renderer.encoder.norm == "batch":
            raise InputError("config.renderer.encoder.norm: only 'group' can be trained")
        self.decoder = FaceDecoderConfig(
            latent=self.renderer.encoder.latent, **config.face_decoder.to_dict()
        )
        self.weights = build(AutoencoderLoss, config.loss.to_dict())
        self.steps = config.sample_steps
        self.weights_dtype = config.weights_dtype
        data = FaceExampleConfig(
            image_size=self.renderer.image_size,
            view_scale=self.renderer.view_scale,
            crop_size=self.renderer.encoder.image_size,
            face_size=self.decoder.image_size,
        )
        data = dataclasses.replace(data, **config.data.to_dict())
        self.examples = FaceExamples(data, "train")
        self.held_out = FaceExamples(dataclasses.replace(data, augment=False), "test")
        self.graph = nnx.split(abstract(self._models), nnx.Param, ...)[0]
        self.frozen = {"codec": self._fit_codec()}

    def _models(self, rngs: nnx.Rngs) -> nnx.Dict:
        return nnx.Dict(
            renderer=Renderer(self.renderer, rngs=rngs),
            face_decoder=FaceDecoder(self.decoder, rngs=rngs),
        )

    def _fit_codec(self) -> dict[str, np.ndarray]:
        count, rng = min(256, len(self.examples)), np.random.default_rng(0)
        chosen = np.linspace(0, len(self.examples) - 1, count).astype(int)
        pictures = [self.examples.load(self.examples[int(i)], rng)["target"][0] for i in chosen]
        return fit_basis(to_signed(np.stack(pictures)), self.renderer.codec)

    def _merge(self, params: Any, frozen: Any) -> nnx.Dict:
        statistics = {"renderer": {"codec": frozen["codec"]}}
        return nnx.merge(self.graph, params, nnx.State(statistics))

    def init(self, key: PRNGKeyArray) -> Any:
        """New parameters of the renderer and of the face decoder."""
        return nnx.to_pure_dict(nnx.state(self._models(initial_keys(key)), nnx.Param))

    def source(self) -> FaceExamples:
        """The index of examples."""
        return self.examples

    def load(self, element: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Read, crop and augment one example."""
        return self.examples.load(element, rng)

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Velocity loss of the targets, plus the face decoder, invariance and codec losses."""
        models, weights = self._merge(params, frozen), self.weights
        renderer = models.renderer
        level_key, noise_key, latent_key, box_key, drop_key, codec_key = jax.random.split(key, 6)
        b, t = batch["target"].shape[:2]
        target = encode_latents(renderer, batch["target"])
        reference = encode_latents(renderer, batch["reference"][:, None])[:, 0]

        driving = rearrange(batch["driving"], "b t h w c -> (b t) h w c")
        other = rearrange(batch["other_driving"], "b t h w c -> (b t) h w c")
        own = batch["reference_driving"] if weights.drop_condition else other[:0]
        latents = renderer.encoder.encode(to_signed(jnp.concatenate([driving, other, own])))
        motion = rearrange(latents[: b * t], "(b t) d -> b t d", t=t)
        again = rearrange(latents[b * t : b * t + len(other)], "(b t) d -> b t d", b=b)

        losses = {}
        losses["invariance"] = invariance(motion, again)
        size = jnp.sqrt(jnp.mean(jax.lax.stop_gradient(motion) ** 2))
        noisy = motion + weights.latent_noise * size * jax.random.normal(latent_key, motion.shape)
        losses["decoder"] = self._decoder_loss(models.face_decoder, noisy, batch)

        seen = None
        if weights.drop_condition:
            seen = ~jax.random.bernoulli(drop_key, weights.drop_condition, (b,))
            noisy = jnp.where(seen[:, None, None], noisy, latents[b * t + len(other) :][:, None])
        dropped = jax.random.bernoulli(box_key, weights.drop_box, (b, 1, 1))
        box = jnp.where(dropped, jnp.asarray(NEUTRAL_BOX), batch["box"])

        level = logit_normal(level_key, (b,), weights.level_mean, weights.level_deviation)
        noise = jax.random.normal(noise_key, target.shape)
        z = self.renderer.flow.corrupt(target, noise, level)
        tokens = renderer.reference_tokens(reference)
        output = renderer.predict(z, level, reference, tokens, noisy, box, seen)
        error = self.renderer.flow.squared_error(output, target, noise, level)
        where = mouth_weights(batch["head_box"], target.shape[2], weights.mouth)
        losses["flow"] = jnp.mean(error * where[..., None])

        rough = target + 0.05 * jax.random.normal(codec_key, target.shape)
        decoded = renderer.codec.decode(rearrange(rough, "b t h w c -> (b t) h w c"))
        pictures = to_signed(rearrange(batch["target"], "b t h w c -> (b t) h w c"))
        losses["codec"] = jnp.mean((decoded - pictures) ** 2)
        total = (
            losses["flow"]
            + weights.decoder * losses["decoder"]
            + weights.invariance * losses["invariance"]
            + weights.codec * losses["codec"]
        )
        copy = jnp.mean((reference[:, None] - target) ** 2)
        clean = jnp.mean((self.renderer.flow.sample(output, z, level) - target) ** 2)
        return total, {**losses, "error_to_copying": clean / copy, "latent_size": size}

    def _decoder_loss(self, decoder: FaceDecoder, motion: Array, batch: Batch) -> Float[Array, ""]:
        t = motion.shape[1]
        reference = jnp.repeat(to_signed(batch["reference_face"]), t, axis=0)
        face = decoder(rearrange(motion, "b t d -> (b t) d"), reference)
        face = rearrange(face, "(b t) h w c -> b t h w c", t=t)
        box = jnp.broadcast_to(jnp.asarray([0.5, 0.5, 1 / 1.1]), batch["head_box"].shape)
        where = mouth_weights(box, face.shape[2], self.weights.mouth)
        return jnp.mean((face - to_signed(batch["target_face"])) ** 2 * where[..., None])

    def _render(self, params: Any, frozen: Any, key: PRNGKeyArray) -> Render:
        render = jax.jit(
            lambda params, frozen, batch: render_examples(
                self._merge(params, frozen).renderer, batch, self.steps, key
            )
        )
        return lambda batch: np.asarray(render(params, frozen, jax.device_put(batch)))

    def evaluate(self, params: Any, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        """Reenactment of held-out clips: PSNR of picture and mouth, and that of the reference."""
        return score(self.held_out, self._render(params, frozen, key), 16)

    def sample(self, params: Any, frozen: Any, key: PRNGKeyArray, folder: Path) -> None:
        """A strip for each source: reference, driving crops, truth, output."""
        save_strips(self.held_out, self._render(params, frozen, key), 16, folder)

    def export(self, params: Any, frozen: Any, path: Path) -> None:
        """The renderer's weights, its codec's basis and its config."""
        weights = {
            "params": params,
            "statistics": {"codec": frozen["codec"]},
        }
        metadata = {"kind": "renderer", "renderer": dataclasses.asdict(self.renderer)}
        save_weights(path, weights, metadata, self.weights_dtype)


def invariance(motion: Float[Array, "b t d"], again: Float[Array, "b t d"]) -> Float[Array, ""]:
    """Squared distance of two latents of one motion, in units of the latents' variance.

    The variance takes part in the gradient: shrinking every latent must gain nothing.
    """
    variance = jnp.mean(jnp.var(rearrange(motion, "b t d -> (b t) d"), axis=0))
    return jnp.mean((motion[:, : again.shape[1]] - again) ** 2) / (variance + 1e-12)
