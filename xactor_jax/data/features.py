"""Compute motion latents and audio features once, beside the shards they belong to.

    python -m xactor_jax.data.features --folders=data/footage,data/actors \\
        --renderer=runs/autoencoder/model.safetensors

Trainings of the motion then read them, on any number of machines, and need no encoding. What is
there already and still fits is kept; a training whose encoder, hearing or shards are others than
those they were made with refuses them.
"""

from __future__ import annotations

from pathlib import Path

from xactor_jax.command import Parser, run, start_up
from xactor_jax.data.audio_features import Hearing, MelConfig
from xactor_jax.data.latents import features_folder, provenance, write_features
from xactor_jax.data.shards import splits_of
from xactor_jax.data.speech_features import SpeechModel
from xactor_jax.release import renderer_at


def add_features(folder: Path, renderer: str, wav2vec2: str = "") -> None:
    """Encode every clip of a folder of shards by a renderer's encoder, and hear its sound.

    Args:
      renderer: a weights file of the autoencoder, or a folder of converted weights.
      wav2vec2: a converted wav2vec2 to hear by; empty: mel features.

    Raises InputError where a file is missing or foreign, or the folder cannot be written to.
    """
    model = renderer_at(renderer)
    hearing: Hearing = SpeechModel(Path(wav2vec2)) if wav2vec2 else MelConfig()
    size = model.config.encoder.image_size
    for split in splits_of(folder):
        made_by = provenance(folder, split, model.encoder, size, hearing)
        place = features_folder(folder, split)
        write_features(folder, split, place, made_by, model.encode, size, hearing)


def main() -> None:
    parser = Parser("Compute motion latents and audio features once, beside their shards.")
    parser.add_argument("--folders", required=True, help="of shards, with commas between")
    parser.add_argument("--renderer", required=True, help="weights whose encoder is to be used")
    parser.add_argument("--wav2vec2", default="", help="weights to hear by; empty: mel features")
    flags = parser.parse_args()
    start_up()
    for folder in flags.folders.split(","):
        add_features(Path(folder), flags.renderer, flags.wav2vec2)
        print(f"{folder}: latents and audio features are beside the shards")


if __name__ == "__main__":
    run(main)
