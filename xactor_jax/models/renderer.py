"""The renderer: motion encoder, codec, reference network and denoiser, as one model.

What X-NeMo's pipeline joins (bytedance/x-nemo-inference src/pipelines), with additions that are
fields of the config and help a small network: the reference latent may be stacked on the noisy one,
a prediction of the sample may be a change of the reference, warped by a flow that is predicted
beside it (as in Siarohin et al., arXiv 2003.00196), and the network may be told how the motion
differs from the reference's own, which otherwise it must see in the reference's picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float

from xactor_jax.diffusion.guidance import guided
from xactor_jax.diffusion.processes import Flow
from xactor_jax.diffusion.samplers import euler, linear_levels
from xactor_jax.models.motion_encoder import MotionEncoder, MotionEncoderConfig
from xactor_jax.models.vae import PatchCodec, PatchCodecConfig
from xactor_jax.models.video_unet import UNet, UNetConfig
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
    denoiser: UNetConfig = UNetConfig()
    flow: Flow = Flow()
    stack_reference: bool = False  # the reference latent joins the noisy one on the channels
    from_reference: bool = False  # a sample prediction is a change of the reference latent
    warps_reference: bool = False  # and that latent is first moved along a flow, also predicted
    sampling: Sampling = Sampling()  # by default
    motion_maps: int = 0  # channels of a linear map of the motion's change, stacked likewise

    def __post_init__(self):
        if self.warps_reference and not self.from_reference:
            raise ValueError(
                "warps_reference needs from_reference: only a changed one can be moved"
            )


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
        self.reference_network = UNet(reference, rngs=rngs)
        self.denoiser = UNet(denoiser, rngs=rngs)
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

    def reference_tokens(self, reference: Float[Array, "b h w c"]) -> list[Float[Array, "b n d"]]:
        """Latent of the portrait -> what the denoiser's attention shares; once per portrait."""
        _, tokens = self.reference_network(reference[:, None], jnp.zeros(len(reference)))
        return tokens

    def predict(
        self,
        z: Float[Array, "b t h w c"],
        noise_level: Float[Array, " b"],
        reference: Float[Array, "b h w c"],
        tokens: Sequence[Float[Array, "b n d"]],
        motion: Float[Array, "b t m"],
        box: Float[Array, "b t 3"],
        still: Float[Array, "b m"],
        reference_seen: Bool[Array, " b"] | None = None,
    ) -> Float[Array, "b t h w c"]:
        """The network's output, as `config.flow` reads it.

        Args:
          z: noisy latents of the frames.
          noise_level: one per video.
          reference, tokens: the portrait's latent and `reference_tokens` of it.
          motion: motion latents.
          box: head box of each frame against the reference: dy, dx, scale.
          still: the reference's own motion latent.
          reference_seen: False where the attention must not see the reference.
        """
        arguments = z, noise_level, reference, tokens, motion, box, still, reference_seen
        return self._sample(self._output(*arguments), reference)

    def _output(
        self, z, noise_level, reference, tokens, motion, box, still, reference_seen=None
    ) -> Float[Array, "b t h w o"]:
        """The denoiser's output as it is; flow comes last."""
        t = z.shape[1]
        fused = self.encoder.fuse(
            rearrange(motion, "b t m -> (b t) m"), rearrange(box, "b t e -> (b t) e")
        )
        fused = rearrange(fused, "(b t) n d -> b t n d", t=t)
        change = jnp.concatenate([motion - still[:, None], box - jnp.asarray(NEUTRAL_BOX)], axis=-1)
        stacked, pooled = [z], None
        if self.config.stack_reference:
            stacked.append(repeat(reference, "b h w c -> b t h w c", t=t))
        if self.motion_maps is not None:
            stacked.append(self._on_grid(self.motion_maps(change)))
            tokens_of_frame = rearrange(fused, "b t n d -> b t (n d)")
            pooled = jnp.concatenate([tokens_of_frame, change], axis=-1)
        output, _ = self.denoiser(
            jnp.concatenate(stacked, axis=-1),
            noise_level,
            motion=fused,
            pooled_motion=pooled,
            reference=tokens,
            reference_seen=reference_seen,
        )
        assert output is not None
        output = output.astype(jnp.float32)
        if self.flow is None:
            return output
        flow = self._on_grid(self.flow(change))
        return output.at[..., self.config.codec.channels :].add(flow)

    def _sample(
        self, output: Float[Array, "b t h w o"], reference: Float[Array, "b h w c"]
    ) -> Float[Array, "b t h w c"]:
        """What the output stands for: itself, or a change of the reference, warped or not."""
        channels = self.config.codec.channels
        if not self.config.from_reference:
            return output
        if self.flow is None:
            return output + reference[:, None]
        return output[..., :channels] + self._warped(reference, output[..., channels:])

    def _on_grid(self, rows: Float[Array, "b t n"]) -> Float[Array, "b t h w c"]:
        size = self.latent_size
        return rearrange(rows, "b t (h w c) -> b t h w c", h=size, w=size)

    def _warped(
        self, reference: Float[Array, "b h w c"], flow: Float[Array, "b t h w 2"]
    ) -> Float[Array, "b t h w c"]:
        """Latents of the reference's picture, moved: latents of patches do not move by pixels."""
        t = flow.shape[1]
        pictures = repeat(self.codec.decode(reference), "b h w c -> (b t) h w c", t=t)
        moved = warp(pictures, rearrange(flow, "b t h w e -> (b t) h w e"))
        return rearrange(self.codec.encode(moved), "(b t) h w c -> b t h w c", t=t)

    def render(
        self,
        noise: Float[Array, "b t h w c"],
        reference: Float[Array, "b h w c"],
        tokens: Sequence[Float[Array, "b n d"]],
        motion: Float[Array, "b t m"],
        box: Float[Array, "b t 3"],
        still: Float[Array, "b m"],
        sampling: Sampling,
    ) -> Float[Array, "b t h w c"]:
        """Frames' latents from noise.

        Args:
          noise, reference, tokens, motion, box, still: as `predict` takes them.
        """
        scale = sampling.motion_guidance
        own = jnp.broadcast_to(still[:, None], motion.shape)
        # With and without the motion, as one batch.
        motions = [motion] if scale == 1 else [motion, own]

        def repeated(x: Array) -> Array:
            return jnp.concatenate([x] * len(motions))

        conditions = (
            repeated(reference),
            [repeated(each) for each in tokens],
            jnp.concatenate(motions),
            repeated(box),
            repeated(still),
        )

        def denoise(z, level):
            levels = jnp.full(len(motions) * len(z), level)
            output = self._output(repeated(z), levels, *conditions)
            if scale != 1:
                output = guided(output[: len(z)], output[len(z) :], scale)
            return self._sample(output, reference)

        return euler(denoise, noise, linear_levels(sampling.steps), self.config.flow)
