"""Makes the golden files of the codecs, CLIP and wav2vec2 from diffusers and transformers.

With the extra `parity` installed: PYTHONPATH=tests python tests/parity/make_golden.py
"""

import gzip

import diffusers
import numpy as np
import torch
import transformers
from parity.published import FRAMES, INPUTS, SALT, inputs
from parity.rule import GOLDEN, rule_array
from torch.nn.functional import interpolate

SCALE = 0.18215  # of Stable Diffusion's latents
# Of the pictures that CLIP was trained on (transformers OPENAI_CLIP_MEAN and _STD).
CLIP_MEAN = torch.tensor(transformers.image_utils.OPENAI_CLIP_MEAN).view(3, 1, 1)
CLIP_STD = torch.tensor(transformers.image_utils.OPENAI_CLIP_STD).view(3, 1, 1)

SIZES = {
    "sd_vae": {
        "small": {"block_out_channels": (32, 64, 64)},
        "full": {"block_out_channels": (128, 256, 512, 512)},
    },
    "svd_vae": {
        "small": {"block_out_channels": (32, 64)},
        "full": {"block_out_channels": (128, 256, 512, 512)},
    },
    "taesd": {
        "small": {
            "encoder_block_out_channels": (16, 16, 16, 16),
            "decoder_block_out_channels": (16, 16, 16, 16),
        },
        "full": {},
    },
    "clip": {
        "small": {
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "projection_dim": 48,
        },
        "full": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
            "projection_dim": 768,
        },
    },
    "wav2vec2": {
        "small": {
            "conv_dim": (32,) * 7,
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "full": {},
    },
}


def build(name: str, size: str) -> torch.nn.Module:
    """The reference network, ready to run."""
    sizes = dict(SIZES[name][size])
    levels = len(sizes.get("block_out_channels", ()))
    if name == "sd_vae":
        sizes["up_block_types"] = ("UpDecoderBlock2D",) * levels
    if name in ("sd_vae", "svd_vae"):
        sizes |= {"down_block_types": ("DownEncoderBlock2D",) * levels, "layers_per_block": 2}
    if name == "clip":
        config = transformers.CLIPVisionConfig(**sizes, attn_implementation="eager")
        return transformers.CLIPVisionModelWithProjection(config).eval()
    if name == "wav2vec2":
        config = transformers.Wav2Vec2Config(**sizes, attn_implementation="eager")
        return transformers.Wav2Vec2Model(config).eval()
    kinds = {
        "sd_vae": diffusers.AutoencoderKL,
        "svd_vae": diffusers.AutoencoderKLTemporalDecoder,
        "taesd": diffusers.AutoencoderTiny,
    }
    return kinds[name](**sizes).eval()


def shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every array of the state dict."""
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


@torch.no_grad()
def outputs(name: str, size: str, salt: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the reference network with rule-made weights says."""
    network = build(name, size)
    weights = {
        key: torch.from_numpy(rule_array(f"{salt}/{name}", key, shape))
        for key, shape in shapes(network).items()
    }
    network.load_state_dict(weights)
    tensors = {key: torch.from_numpy(value) for key, value in given.items()}
    run = {"clip": embed, "wav2vec2": listen, "taesd": code_tiny}.get(name, code)
    return {key: value.numpy() for key, value in run(network, **tensors).items()}


def code(network, images, latents):
    extra = (FRAMES,) if isinstance(network, diffusers.AutoencoderKLTemporalDecoder) else ()
    return {
        "latents": SCALE * network.encode(images).latent_dist.mode(),
        "images": network.decode(latents / SCALE, *extra).sample,
    }


def code_tiny(network, images, latents):
    return {"latents": network.encode(images).latents, "images": network.decode(latents).sample}


def embed(network, images):
    pixels = ((images + 1) / 2 - CLIP_MEAN) / CLIP_STD
    return {"embedding": network(pixel_values=pixels).image_embeds}


def listen(network, audio):
    """As deepbrainai-research/float runs it: models/wav2vec2.py."""
    prepare = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    prepared = prepare(list(audio.numpy()), sampling_rate=16000, return_tensors="pt").input_values
    features = network.feature_extractor(prepared)
    frames = round(audio.shape[1] / 640)
    features = interpolate(features, size=frames, align_corners=True, mode="linear")
    hidden, _ = network.feature_projection(features.transpose(1, 2))
    # transformers records hidden states in forward hooks of the whole model only.
    states = []
    hooks = [network.encoder.layers[0].register_forward_pre_hook(lambda _, x: states.append(x[0]))]
    for layer in network.encoder.layers:
        hooks.append(layer.register_forward_hook(lambda _, __, y: states.append(first(y))))
    network.encoder(hidden)
    for hook in hooks:
        hook.remove()
    return {"states": torch.stack(states, dim=1)}


def first(output):
    return output[0] if isinstance(output, tuple) else output


def main() -> None:
    for name in INPUTS:
        for size in ("small", "full"):
            with torch.device("meta"):
                lines = [f"{key} {shape}" for key, shape in shapes(build(name, size)).items()]
            text = "\n".join(lines) + "\n"
            path = GOLDEN / f"{name}_keys_{size}.txt.gz"
            path.write_bytes(gzip.compress(text.encode(), mtime=0))
        golden = outputs(name, "small", SALT, inputs(name))
        np.savez_compressed(GOLDEN / f"{name}.npz", **golden)
        print(name, {key: (value.shape, float(value.std())) for key, value in golden.items()})


if __name__ == "__main__":
    main()
