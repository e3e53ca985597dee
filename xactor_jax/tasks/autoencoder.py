"""Learn the motion latent: motion encoder and image half of the renderer, together.

An example is a reference frame of a person, other frames of the same clip as targets, and driving
crops that show the targets' motion: of the same frames or, for synthetic actors, of another
identity in the same motion. What differs between two crops of one motion (identity, colour, place)
must not reach the latent; a second crop of the same motion is encoded to say so. Nor must it matter
whether a face is footage or synthetic: the latents of both have mean zero. Where the motion behind
a crop is known, a linear reading of the latent must give it.
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

from xactor_jax.checkpoint import load_kind, save_weights
from xactor_jax.config import build, released
from xactor_jax.data.examples import (
    TRUTH,
    TRUTH_NAMES,
    FaceExampleConfig,
    FaceExamples,
    example_shapes,
)
from xactor_jax.diffusion.noise_levels import logit_normal
from xactor_jax.errors import InputError
from xactor_jax.evaluation.pictures import mouth_weights, to_signed
from xactor_jax.models.face_decoder import FaceDecoder, FaceDecoderConfig
from xactor_jax.models.renderer import NEUTRAL_BOX, Renderer, RendererConfig
from xactor_jax.models.vae import fit_basis
from xactor_jax.nn.layers import Linear, abstract, initial_keys
from xactor_jax.sharding import check_context
from xactor_jax.start import fitted
from xactor_jax.tasks.autoencoder_losses import (
    by_source,
    frame_weights,
    latent_losses,
    moved_error,
    reading_error,
    weighted_error,
)
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

FACE_BOX = (0.5, 0.5, 1 / 1.1)  # head box of a coarse crop
SINGLE = ("yaw", "pitch", "roll", "jawOpen")  # one number each; of the brows there are six


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderLoss:
    """Weights and probabilities of the loss; every value is our default, none is published."""

    flow: float = 1.0  # weight of the velocity's squared error
    level_mean: float = 1.5  # noise level = sigmoid(mean + deviation n)
    level_deviation: float = 1.2
    mouth: float = 5.0  # weight of the mouth against the rest of the picture
    latent_noise: float = 0.05  # of the latents' standard deviation
    drop_box: float = 0.15  # head box replaced by (0, 0, 1)
    drop_condition: float = 0.0  # reference tokens dropped and motion replaced by the reference's
    decoder: float = 1.0  # weight of the face decoder's picture
    invariance: float = 0.005  # weight of the distance between two crops of one motion
    centre: float = 0.0  # weight of the squared mean latent of footage, and of actors
    whiteness: float = 0.0  # weight of the latents' covariance against the identity
    truth: float = 0.0  # weight of reading the actors' expression and head pose off the latent
    emphasis: float = 1.0  # of the head's angles and the jaw against the rest of that truth
    picture: float = 0.0  # weight of the squared error of decoded frames, detail included
    moved: float = 0.0  # weight of the moved reference's own error, at several scales
    codec: float = 1.0  # weight of the codec's own reconstruction
    least_copying: float = 0.3  # see `frame_weights`

    @property
    def renders(self) -> bool:
        """Whether frames are rendered at all; without, the motion encoder learns alone."""
        return max(self.flow, self.picture, self.moved) > 0


class AutoencoderObjective:
    """What is learnt, without the data: parameters, their loss, and shapes of all that it reads."""

    def __init__(self, config: Any):
        self.renderer = build(RendererConfig, config.renderer.to_dict())
        if self.renderer.encoder.norm == "batch":
            raise InputError("config.renderer.encoder.norm: only 'group' can be trained")
        self.decoder = FaceDecoderConfig(
            latent=self.renderer.encoder.latent, **config.face_decoder.to_dict()
        )
        self.weights = build(AutoencoderLoss, config.loss.to_dict())
        if self.weights.moved and not self.renderer.warps_reference:
            raise InputError(
                f"config.loss.moved={self.weights.moved} needs config.renderer.warps_reference; "
                "set that to True or this to 0"
            )
        data = FaceExampleConfig(
            image_size=self.renderer.image_size,
            view_scale=self.renderer.view_scale,
            crop_size=self.renderer.encoder.image_size,
            face_size=self.decoder.image_size,
        )
        self.data = dataclasses.replace(data, **config.data.to_dict())
        self.graph, _, self._statistics = nnx.split(abstract(self._models), nnx.Param, ...)

    @property
    def example_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of one training example."""
        return example_shapes(self.data)

    @property
    def parts(self) -> int:
        """Targets of an example, which the mesh's context axis divides."""
        return self.data.targets

    @property
    def frozen_shapes(self) -> Any:
        """Shapes of what the loss reads and training never changes."""
        truth, copying = (jax.ShapeDtypeStruct((n,), jnp.float32) for n in (TRUTH, 2))
        return {
            "truth": dict.fromkeys(("mean", "deviation", "weight"), truth),
            "copying": dict.fromkeys(("flow", "decoder"), copying),
            "codec": nnx.to_pure_dict(self._statistics)["renderer"]["codec"],
        }

    def _models(self, rngs: nnx.Rngs) -> nnx.Dict:
        return nnx.Dict(
            renderer=Renderer(self.renderer, rngs=rngs),
            face_decoder=FaceDecoder(self.decoder, rngs=rngs),
            # From zero: guesses would teach the encoder to say nothing.
            truth_reading=Linear(
                self.decoder.latent, TRUTH, kernel_init=nnx.initializers.zeros, rngs=rngs
            ),
        )

    def _truth_weights(self) -> np.ndarray:
        """How much each number of the truth counts; mean 1."""
        weights = np.where(np.isin(TRUTH_NAMES, SINGLE), self.weights.emphasis, 1)
        return (weights / weights.mean()).astype(np.float32)

    def _where(self, batch: Batch) -> dict[str, Float[Array, "b t h w"]]:
        """Weights of the pixels of targets and of their coarse crops."""
        pictures, faces = batch["target"], batch["target_face"]
        box = jnp.broadcast_to(jnp.asarray(FACE_BOX), batch["head_box"].shape)
        return {
            "flow": mouth_weights(batch["head_box"], pictures.shape[2], self.weights.mouth),
            "decoder": mouth_weights(box, faces.shape[2], self.weights.mouth),
        }

    def _copying(self, batch: Batch) -> dict[str, Float[Array, "b t"]]:
        """The weighted squared error of each target if the reference is repeated."""
        pairs = {"flow": ("target", "reference"), "decoder": ("target_face", "reference_face")}
        where = self._where(batch)
        return {
            name: jnp.mean(
                where[name][..., None]
                * (to_signed(batch[target]) - to_signed(batch[reference])[:, None]) ** 2,
                axis=(2, 3, 4),
            )
            for name, (target, reference) in pairs.items()
        }

    def _merge(self, params: Any, frozen: Any) -> nnx.Dict:
        statistics = {"renderer": {"codec": frozen["codec"]}}
        return nnx.merge(self.graph, params, nnx.State(statistics))

    def init(self, key: PRNGKeyArray) -> Any:
        """New parameters of the renderer and of the face decoder."""
        return nnx.to_pure_dict(nnx.state(self._models(initial_keys(key)), nnx.Param))

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Velocity loss of the targets, and those of the latent, the face decoder and the codec."""
        check_context(self.parts, "targets of an example")
        models, weights = self._merge(params, frozen), self.weights
        latent_key, frames_key, codec_key = jax.random.split(key, 3)
        counts, where = self._counts(batch, frozen), self._where(batch)

        crops = jnp.concatenate([batch["driving"], batch["other_driving"]], axis=1)
        count = batch["driving"].shape[1]
        motion, again = jnp.split(encode_motion(models.renderer, crops), [count], axis=1)
        losses, deviation = latent_losses(motion, again, batch["is_footage"])
        noise = deviation * jax.random.normal(latent_key, motion.shape)
        noisy = motion + weights.latent_noise * noise
        losses["truth"] = reading_error(
            models.truth_reading(noisy), batch["truth"], batch["has_truth"], **frozen["truth"]
        )
        face = self._decode_faces(models.face_decoder, noisy, batch)
        losses["decoder"] = weighted_error(
            face, to_signed(batch["target_face"]), where["decoder"], counts["decoder"]
        )
        metrics = {"latent_deviation": deviation}
        if weights.renders:
            of_frames, metrics["error_to_copying"] = self._frame_losses(
                models.renderer, noisy, batch, where["flow"], counts["flow"], frames_key
            )
            losses |= of_frames | {"codec": self._codec_loss(models.renderer, batch, codec_key)}
        total = sum(getattr(weights, name) * value for name, value in losses.items())
        return jnp.asarray(total), losses | metrics

    def _frame_losses(
        self,
        renderer: Renderer,
        motion: Float[Array, "b t d"],
        batch: Batch,
        where: Float[Array, "b t h w"],
        counts: Float[Array, "b t"],
        key: PRNGKeyArray,
    ) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Losses of what the renderer makes of the motion, and its error over that of copying."""
        weights, flow, b = self.weights, self.renderer.flow, len(motion)
        level_key, noise_key, box_key, drop_key = jax.random.split(key, 4)
        target, reference = encode_latents(renderer, batch["target"]), see(renderer, batch)
        seen = None
        if weights.drop_condition:
            seen = ~jax.random.bernoulli(drop_key, weights.drop_condition, (b,))
            motion = jnp.where(seen[:, None, None], motion, reference.motion[:, None])
        dropped = jax.random.bernoulli(box_key, weights.drop_box, (b, 1, 1))
        box = jnp.where(dropped, jnp.asarray(NEUTRAL_BOX), batch["box"])

        level = logit_normal(level_key, (b,), weights.level_mean, weights.level_deviation)
        noise = jax.random.normal(noise_key, target.shape)
        z = flow.corrupt(target, noise, level)
        output, moved = renderer.predict(z, level, reference, motion, box, seen)
        error = flow.squared_error(output, target, noise, level)
        coarse = mouth_weights(batch["head_box"], target.shape[2], weights.mouth)
        error = jnp.mean(error * coarse[..., None], axis=(2, 3, 4))
        losses = {"flow": jnp.mean(error * counts)}
        sample = flow.sample(output, z, level)
        if weights.picture:
            frames = renderer.frames(sample, moved)
            losses["picture"] = weighted_error(frames, to_signed(batch["target"]), where, counts)
        if weights.moved:
            assert moved is not None  # such a config is refused
            losses["moved"] = moved_error(moved, to_signed(batch["target"]), counts)
        copying = jnp.mean((reference.latent[:, None] - target) ** 2)
        return losses, jnp.mean((sample - target) ** 2) / copying

    def _codec_loss(self, renderer: Renderer, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        pictures = to_signed(batch["target"][:, 0])
        latents = jax.lax.stop_gradient(renderer.codec.encode(pictures))
        rough = latents + 0.05 * jax.random.normal(key, latents.shape)
        return jnp.mean((renderer.codec.decode(rough) - pictures) ** 2)

    def _counts(self, batch: Batch, frozen: Any) -> dict[str, Float[Array, "b t"]]:
        """How much each target counts in the loss of the pictures and of the coarse crops."""
        return {
            name: frame_weights(
                copying, frozen["copying"][name], batch["is_footage"], self.weights.least_copying
            )
            for name, copying in self._copying(batch).items()
        }

    def _decode_faces(
        self, decoder: FaceDecoder, motion: Array, batch: Batch
    ) -> Float[Array, "b t f f 3"]:
        t = motion.shape[1]
        reference = jnp.repeat(to_signed(batch["reference_face"]), t, axis=0)
        face = decoder(rearrange(motion, "b t d -> (b t) d"), reference)
        return rearrange(face, "(b t) h w c -> b t h w c", t=t)

    @property
    def samples(self) -> bool:
        """Not while the encoder learns alone."""
        return self.weights.renders

    def sampler(self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray) -> Array:
        """Frames of the targets, as evaluation renders them."""
        return render_examples(self._merge(params, frozen).renderer, batch, key)


class AutoencoderTask(AutoencoderObjective):
    """Task `autoencoder` of the training loop."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.weights_dtype = config.weights_dtype
        self.examples = FaceExamples(self.data)
        self.held_out = FaceExamples(dataclasses.replace(self.data, augment=False), held_out=True)
        mean, deviation = self.examples.truth_statistics(64)
        self.frozen = {
            "truth": {"mean": mean, "deviation": deviation, "weight": self._truth_weights()},
            **self._measure(config.initial_weights),
        }

    def _measure(self, initial_weights: str) -> dict[str, Any]:
        """The codec's basis, and what copying the reference misses in footage and in actors."""
        count, rng = min(256, len(self.examples)), np.random.default_rng(0)
        chosen = np.linspace(0, len(self.examples) - 1, count).astype(int)
        examples = [self.examples.load(self.examples[int(i)], rng) for i in chosen]
        batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
        errors = self._copying({name: jnp.asarray(array) for name, array in batch.items()})
        copying = {name: np.asarray(error) for name, error in errors.items()}
        if initial_weights:  # they know the latents of their own basis only
            statistics = load_kind(Path(initial_weights), "renderer")[0].get("statistics", {})
            codec = fitted(
                statistics.get("codec", {}),
                self.frozen_shapes["codec"],
                initial_weights,
                "config.initial_weights",
            )
        else:
            codec = fit_basis(to_signed(batch["target"][:, 0]), self.renderer.codec)
        return {
            "codec": codec,
            "copying": {
                name: by_source(error, batch["is_footage"]) for name, error in copying.items()
            },
        }

    def source(self) -> FaceExamples:
        """The index of examples."""
        return self.examples

    def load(self, element: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Read, crop and augment one example."""
        return self.examples.load(element, rng)

    def evaluate(self, params: Any, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        """Reenactment of held-out clips: PSNR of picture and mouth, and that of the reference.

        Of an encoder that learns alone: what it is held to, on held-out clips.
        """
        if not self.weights.renders:
            return self._held_out_losses(params, frozen, key)
        return score(self.held_out, rendering(self.sampler, params, frozen, key), 16)

    def _held_out_losses(self, params: Any, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        numbers, loss = {}, jax.jit(self.loss)
        for source, batch in self.held_out.fixed_batches(16).items():
            found = loss(params, frozen, batch, key)[1]
            numbers |= {
                f"{source}/{name}": float(found[name])
                for name in ("decoder", "invariance", "truth")
                if name != "truth" or batch["has_truth"].any()
            }
        return numbers

    def sample(self, params: Any, frozen: Any, key: PRNGKeyArray, folder: Path) -> None:
        """A strip for each source: reference, driving crops, truth, output; if any is rendered."""
        if not self.weights.renders:
            return
        save_strips(self.held_out, rendering(self.sampler, params, frozen, key), 16, folder)

    def export(self, params: Any, frozen: Any, path: Path) -> None:
        """The renderer's weights, its codec's basis and its config."""
        weights = {
            "params": params,
            "statistics": {"codec": frozen["codec"]},
        }
        metadata = {"kind": "renderer", "renderer": released(self.renderer)}
        save_weights(path, weights, metadata, self.weights_dtype)
