"""The released X-NeMo networks as a renderer: a folder of converted weights, ready to reenact.

`python -m xactor_jax.convert` fills the folder: kinds `xnemo` and `clip`, and one codec, of which
the first found is used: `svd_vae` (the published choice), `sd_vae`, or `taesd`, which is far faster
and a little worse. Generation is X-NeMo's (diffusion/reenactment.py): all frames from noise to data
together, with every condition computed once. Latents of the whole video are in memory, 64 KiB a
frame; pictures are decoded as they are taken.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from xactor_jax.batches import in_batches
from xactor_jax.checkpoint import config_of, fitting_graph, load_kind
from xactor_jax.diffusion.guidance import Conditions
from xactor_jax.diffusion.reenactment import Reenactment
from xactor_jax.errors import InputError
from xactor_jax.evaluation.pictures import to_signed
from xactor_jax.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from xactor_jax.models.clip import CLIPImageEncoder, CLIPImageEncoderConfig
from xactor_jax.models.motion_encoder import MotionEncoder, MotionEncoderConfig
from xactor_jax.models.renderer import NEUTRAL_BOX, Sampling
from xactor_jax.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from xactor_jax.models.video_unet import UNet, UNetConfig
from xactor_jax.nn.attention import KeysAndValues
from xactor_jax.progress import progress
from xactor_jax.state import digest

NETWORKS = {
    "motion_encoder": (MotionEncoderConfig, MotionEncoder),
    "reference_network": (UNetConfig, UNet),
    "denoiser": (UNetConfig, UNet),
    "clip": (CLIPImageEncoderConfig, CLIPImageEncoder),
}
CODECS = {
    "svd_vae": (AutoencoderKLConfig, AutoencoderKL),
    "sd_vae": (AutoencoderKLConfig, AutoencoderKL),
    "taesd": (TinyAutoencoderConfig, TinyAutoencoder),
}
DECODED_TOGETHER = 25  # frames; the temporal decoder was published with as many
_CELLS = 64  # side of the latent that the released networks were trained with


@dataclasses.dataclass(frozen=True, kw_only=True)
class XNemoConfig:
    """What generation needs to know of the networks."""

    image_size: int
    encoder: MotionEncoderConfig
    view_scale: float = 2.0  # side of the picture in head boxes
    sampling: Sampling = Sampling(steps=35, motion_guidance=2.5)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """A network's weights; its definition is static."""

    graph: nnx.GraphDef = dataclasses.field(metadata={"static": True})
    params: Any
    statistics: Any

    @classmethod
    def open(cls, path: Path, kind: str, config_type: Any, make: Any) -> tuple[Any, Network]:
        """The config and the network of a converted file. Raises InputError for another file."""
        arrays, metadata = load_kind(path, kind)
        config = config_of(path, metadata, kind, config_type)
        if jax.default_backend() != "cpu":
            config = dataclasses.replace(config, dtype="bfloat16")
        graph = fitting_graph(path, lambda rngs: make(config, rngs=rngs), arrays["params"])
        params, statistics = arrays["params"], arrays.get("statistics", {})
        return config, cls(graph, *jax.tree.map(jnp.asarray, (params, statistics)))

    def model(self) -> Any:
        """The network with its weights."""
        return nnx.merge(self.graph, self.params, nnx.State(self.statistics))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Portrait:
    """What the networks know of a portrait."""

    latent: Float[Array, "1 h w c"]
    image_token: Float[Array, "1 1 i"]
    shared: list[KeysAndValues]  # what the denoiser's attention sees of the reference network
    motion: Float[Array, "1 n d"]  # its own motion tokens


def is_converted(folder: Path) -> bool:
    """Whether a checkpoint folder holds converted networks."""
    return (folder / "denoiser.safetensors").is_file()


class XNemoRenderer:
    """Crops to motion latents, and a portrait in motion to frames, as `release.PortraitRenderer`.

    Raises InputError naming the file that the folder lacks, and the command that makes it.
    """

    def __init__(self, folder: Path):
        codec = next((name for name in CODECS if _file(folder, name).is_file()), "svd_vae")
        found = {}
        for name, (config, make) in {**NETWORKS, codec: CODECS[codec]}.items():
            path = _file(folder, name)
            if not path.is_file():
                kind = "xnemo" if name in NETWORKS and name != "clip" else name
                raise InputError(
                    f"{folder}: lacks {path.name}; write it with python -m xactor_jax.convert "
                    f"{kind} --source=WEIGHTS --output={folder}"
                )
            found[name] = Network.open(path, name, config, make)
        codec_config, self._codec = found.pop(codec)
        self._networks = {name: network for name, (_, network) in found.items()}
        encoder = found["motion_encoder"][0]
        self.config = XNemoConfig(image_size=_CELLS * codec_config.factor, encoder=encoder)
        self.encoder = digest(self._networks["motion_encoder"].params)

    def encode(self, crops: UInt8[np.ndarray, "b h w 3"]) -> Float[np.ndarray, "b d"]:
        """Driving crops -> motion latents; any number."""
        return np.stack(list(self.encode_each(crops)))

    def encode_each(
        self, crops: Iterable[UInt8[np.ndarray, "h w 3"]]
    ) -> Iterator[Float[np.ndarray, " d"]]:
        """Driving crops -> motion latents, in batches of a fixed size and constant memory."""
        encoder = self._networks["motion_encoder"]
        return in_batches(lambda batch: _encode(encoder, batch), crops)

    def animate(
        self,
        portrait: UInt8[np.ndarray, "h w 3"],
        crop: UInt8[np.ndarray, "c c 3"],
        motion: Iterable[Float[np.ndarray, " d"]],
        box: Iterable[Float[np.ndarray, " 3"]],
        key: PRNGKeyArray,
        sampling: Sampling,
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Frames of the portrait, as many as there are of motion.

        `box` is not looked at: the released generation gives its networks a head that stays where
        it is (scripts/pose2vid_xnemo.py), and so they know no other.
        """
        encoder = self._networks["motion_encoder"]
        seen = _see(self._networks, self._codec, jnp.asarray(portrait), jnp.asarray(crop))
        tokens = np.stack(list(in_batches(lambda batch: _fuse(encoder, batch), motion)))
        reenactment = Reenactment.of(sampling.steps, sampling.motion_guidance)
        conditions = Conditions(
            motion=jnp.asarray(tokens)[None],
            reference_seen=jnp.ones(1, bool),
            reference=seen.shared,
            image_token=seen.image_token,
        )
        denoise = functools.partial(_denoise, self._networks["denoiser"])
        latents = seen.latent[:, None]
        with progress("denoising", sampling.steps, "steps") as advance:
            for latents in reenactment.sample(denoise, seen.latent, conditions, seen.motion, key):
                jax.block_until_ready(latents)
                advance(1)
        for start in range(0, len(tokens), DECODED_TOGETHER):
            part = latents[0, start : start + DECODED_TOGETHER]
            yield from np.asarray(_decode(self._codec, part))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


@jax.jit
def _encode(encoder: Network, crops: Array) -> Array:
    return encoder.model().encode(to_signed(crops))


@jax.jit
def _fuse(encoder: Network, latents: Array) -> Array:
    return encoder.model().fuse(latents, jnp.tile(jnp.asarray(NEUTRAL_BOX), (len(latents), 1)))


@jax.jit
def _see(networks: dict[str, Network], codec: Network, portrait: Array, crop: Array) -> Portrait:
    models = {name: network.model() for name, network in networks.items()}
    picture = to_signed(portrait)[None]
    latent = codec.model().encode(picture)
    token = models["clip"](picture)[:, None]
    _, tokens = models["reference_network"](latent[:, None], jnp.zeros(1), image_token=token)
    own = models["motion_encoder"](to_signed(crop)[None], jnp.asarray([NEUTRAL_BOX]))
    return Portrait(latent, token, models["denoiser"].share(tokens), own)


@jax.jit
def _denoise(denoiser: Network, z: Array, level: Array, conditions: Conditions) -> Array:
    output, _ = denoiser.model()(
        z,
        level,
        image_token=conditions.image_token,
        motion=conditions.motion,
        reference=conditions.reference,
        reference_seen=conditions.reference_seen,
    )
    return output


@jax.jit
def _decode(codec: Network, latents: Array) -> Array:
    frames = codec.model().decode(latents)
    return jnp.clip(jnp.round(127.5 * (frames + 1)), 0, 255).astype(jnp.uint8)
