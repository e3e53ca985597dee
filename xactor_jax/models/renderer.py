"""The renderer: motion encoder, codec, reference network and denoiser, as one model.

What X-NeMo's pipeline joins (bytedance/x-nemo-inference src/pipelines), with additions that are
fields of the config and help a small network: the reference latent may be stacked on the noisy one,
a prediction of the sample may be a change of the reference, warped by a flow that is predicted
beside it (as in Siarohin et al., arXiv 2003.00196), and the network may be told how the motion
differs from the reference's own, which otherwise it must see in the reference's picture. What is
warped is the picture itself, so frames keep the detail that a coarse codec would drop.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float

from xactor_jax.diffusion.guidance import guided
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.samplers import euler, linear_levels
from xactor_jax.models.motion_encoder import MotionEncoder, MotionEncoderConfig
from xactor_jax.models.vae import PatchCodec, PatchCodecConfig
from xactor_jax.models.video_dit import DiT, DiTConfig
from xactor_jax.models.video_unet import UNet, UNetConfig
from xactor_jax.nn.attention import KeysAndValues
from xactor_jax.nn.layers import Linear
from xactor_jax.nn.warping import warp

NEUTRAL_BOX = (0.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How frames are made from noise.

    Guidance is X-NeMo's in its motion alone: what the unconditional half sees instead is the
    reference's own motion (bytedance/x-nemo-inference src/pipelines).
    """

    steps: int = 2
    motion_guidance: float = 1.0  # 1: none


@dataclasses.dataclass(frozen=True, kw_only=True)
class RendererConfig:
    """Sizes and conditions of the whole renderer."""

    image_size: int = 512
    view_scale: float = 2.0  # side of the picture in head boxes
    codec: PatchCodecConfig = PatchCodecConfig()
    encoder: MotionEncoderConfig = MotionEncoderConfig()
    denoiser: UNetConfig | DiTConfig = UNetConfig()  # and its reference network
    flow: Flow = Flow()
    stack_reference: bool = False  # the reference latent joins the noisy one on the channels
    from_reference: bool = False  # a sample prediction is a change of the reference latent
    warps_reference: bool = False  # of its picture moved along a flow, which is predicted too
    sampling: Sampling = Sampling()  # by default
    motion_maps: int = 0  # channels of a linear map of the motion's change, stacked likewise

    def __post_init__(self):
        if self.warps_reference and not self.from_reference:
            raise ValueError(
                "warps_reference needs from_reference: only a changed one can be moved"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """What the renderer knows of portraits (`Renderer.see`); made once for all their frames."""

    picture: Float[Array, "b H W 3"]
    latent: Float[Array, "b h w c"]
    shared: list[KeysAndValues]  # what the denoiser's attention sees of it
    motion: Float[Array, "b m"]  # its own motion latent


class Renderer(nnx.Module):
    """Portrait and motion -> frames. Pictures are in [-1, 1]; latents are the codec's."""

    def __init__(self, config: RendererConfig, *, rngs: nnx.Rngs):
        self.config = config
        channels, encoder, maps = config.codec.channels, config.encoder, config.motion_maps
        change = encoder.latent + len(NEUTRAL_BOX)
        pooled = encoder.tokens * encoder.token_width + change
        denoiser = dataclasses.replace(
            config.denoiser,
            in_channels=channels * (2 if config.stack_reference else 1) + maps,
            out_channels=channels + (2 if config.warps_reference else 0),
            pooled_motion=pooled if maps else 0,
        )
        reference = dataclasses.replace(
            config.denoiser,
            in_channels=channels,
            out_channels=None,
            motion_token=0,
            pooled_motion=0,
            temporal=False,
        )
        self.codec = PatchCodec(config.codec, rngs=rngs)
        self.encoder = MotionEncoder(config.encoder, rngs=rngs)
        self.reference_network = _network(reference, rngs)
        self.denoiser = _network(denoiser, rngs)
        self.motion_maps = (
            Linear(change, self.latent_size**2 * maps, use_bias=False, rngs=rngs) if maps else None
        )
        # How heads of any portrait move, to which the denoiser adds what is this portrait's own.
        self.flow = (
            Linear(
                change,
                self.latent_size**2 * 2,
                use_bias=False,
                kernel_init=nnx.initializers.zeros,
                rngs=rngs,
            )
            if config.warps_reference
            else None
        )

    @property
    def latent_size(self) -> int:
        """Side of a frame's latent."""
        return self.config.image_size // self.config.codec.factor

    def see(self, picture: Float[Array, "b H W 3"], motion: Float[Array, "b m"]) -> Reference:
        """Portraits and their own motion latents, as the other calls take them."""
        latent = self.codec.encode(picture)
        _, tokens = self.reference_network(latent[:, None], jnp.zeros(len(latent)))
        shared = self.denoiser.share(tokens)
        return Reference(picture=picture, latent=latent, shared=shared, motion=motion)

    def predict(
        self,
        z: Float[Array, "b t h w c"],
        noise_level: Float[Array, " b"],
        reference: Reference,
        motion: Float[Array, "b t m"],
        box: Float[Array, "b t 3"],
        reference_seen: Bool[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b t h w c"], Float[Array, "b t H W 3"] | None]:
        """The network's output, as `config.flow` reads it, and the portraits as it moved them.

        Args:
          z: noisy latents of the frames.
          noise_level: one per video.
          motion: motion latents.
          box: head box of each frame against the reference: dy, dx, scale.
          reference_seen: False where the attention must not see the reference.

        Returns:
          The output and, where the config says that the reference is moved, its moved pictures.
        """
        output = self._output(z, noise_level, reference, motion, box, reference_seen)
        return self._read(output, reference)

    def frames(
        self, latents: Float[Array, "b t h w c"], moved: Float[Array, "b t H W 3"] | None
    ) -> Float[Array, "b t H W 3"]:
        """Decoded latents; what the codec drops of the moved portrait is kept."""
        frames = self._each(self.codec.decode, latents)
        if moved is None:
            return frames
        return frames + moved - self._each(self.codec.decode, self._each(self.codec.encode, moved))

    def _output(
        self, z, noise_level, reference, motion, box, reference_seen=None
    ) -> Float[Array, "b t h w o"]:
        """The denoiser's output as it is; flow comes last."""
        t = z.shape[1]
        fused = self.encoder.fuse(
            rearrange(motion, "b t m -> (b t) m"), rearrange(box, "b t e -> (b t) e")
        )
        fused = rearrange(fused, "(b t) n d -> b t n d", t=t)
        change = jnp.concatenate(
            [motion - reference.motion[:, None], box - jnp.asarray(NEUTRAL_BOX)], axis=-1
        )
        stacked, pooled = [z], None
        if self.config.stack_reference:
            stacked.append(repeat(reference.latent, "b h w c -> b t h w c", t=t))
        if self.motion_maps is not None:
            stacked.append(self._on_grid(self.motion_maps(change)))
            tokens_of_frame = rearrange(fused, "b t n d -> b t (n d)")
            pooled = jnp.concatenate([tokens_of_frame, change], axis=-1)
        output, _ = self.denoiser(
            jnp.concatenate(stacked, axis=-1),
            noise_level,
            motion=fused,
            pooled_motion=pooled,
            reference=reference.shared,
            reference_seen=reference_seen,
        )
        assert output is not None
        output = output.astype(jnp.float32)
        if self.flow is None:
            return output
        flow = self._on_grid(self.flow(change))
        return output.at[..., self.config.codec.channels :].add(flow)

    def _read(
        self, output: Float[Array, "b t h w o"], reference: Reference
    ) -> tuple[Float[Array, "b t h w c"], Float[Array, "b t H W 3"] | None]:
        """What the output stands for: itself, or a change of the reference, moved or not."""
        channels, t = self.config.codec.channels, output.shape[1]
        if not self.config.from_reference:
            return output, None
        if self.flow is None:
            return output + reference.latent[:, None], None
        # Pictures, because latents of patches do not move by pixels.
        pictures = repeat(reference.picture, "b h w c -> (b t) h w c", t=t)
        moved = warp(pictures, rearrange(output[..., channels:], "b t h w e -> (b t) h w e"))
        moved = rearrange(moved, "(b t) h w c -> b t h w c", t=t)
        return output[..., :channels] + self._each(self.codec.encode, moved), moved

    def _each(self, function, x: Float[Array, "b t *s"]) -> Float[Array, "b t *r"]:
        """A function of batches, of every frame of videos."""
        found = function(x.reshape(-1, *x.shape[2:]))
        return found.reshape(*x.shape[:2], *found.shape[1:])

    def _on_grid(self, rows: Float[Array, "b t n"]) -> Float[Array, "b t h w c"]:
        size = self.latent_size
        return rearrange(rows, "b t (h w c) -> b t h w c", h=size, w=size)

    def render(
        self,
        noise: Float[Array, "b t h w c"],
        reference: Reference,
        motion: Float[Array, "b t m"],
        box: Float[Array, "b t 3"],
        sampling: Sampling,
    ) -> Float[Array, "b t H W 3"]:
        """Frames, in about [-1, 1], from noise; motion and box as `predict` takes them."""
        scale, b = sampling.motion_guidance, len(noise)
        own = jnp.broadcast_to(reference.motion[:, None], motion.shape)
        # With and without the motion, as one batch.
        motions = [motion] if scale == 1 else [motion, own]
        seen, boxes = jax.tree.map(lambda x: jnp.concatenate([x] * len(motions)), (reference, box))

        def output_of(z, level):
            z = jnp.concatenate([z] * len(motions))
            levels = jnp.full(len(z), level)
            output = self._output(z, levels, seen, jnp.concatenate(motions), boxes)
            # Guided before it is read: a moved picture is not linear in how far it moves.
            return output if scale == 1 else guided(output[:b], output[b:], scale)

        levels, flow = linear_levels(sampling.steps), self.config.flow
        z = euler(
            lambda z, level: self._read(output_of(z, level), reference)[0], noise, levels[:-1], flow
        )
        # The last step ends on the sample that the network sees in z.
        output, moved = self._read(output_of(z, levels[-2]), reference)
        return self.frames(flow.sample(output, z, levels[-2]), moved)


def _network(config: UNetConfig | DiTConfig, rngs: nnx.Rngs) -> UNet | DiT:
    if isinstance(config, DiTConfig):
        return DiT(config, rngs=rngs)
    return UNet(config, rngs=rngs)
