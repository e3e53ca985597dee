"""Published weights under this package's names: for the command line, and from Python.

python -m xactor_jax.convert xnemo --source=FOLDER --output=CHECKPOINT
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xactor_jax.command import Parser, run
from xactor_jax.conversion import clip as clip_files
from xactor_jax.conversion import published, xnemo
from xactor_jax.conversion import vae as codecs
from xactor_jax.conversion import wav2vec2 as wav2vec2_files
from xactor_jax.conversion.clip import clip
from xactor_jax.conversion.vae import vae
from xactor_jax.conversion.wav2vec2 import wav2vec2
from xactor_jax.conversion.xnemo import denoiser, motion_encoder, reference_network

__all__ = [
    "KINDS",
    "clip",
    "denoiser",
    "motion_encoder",
    "reference_network",
    "vae",
    "wav2vec2",
]

# What can be converted: (source, output folder) -> the files written.
KINDS: dict[str, Callable[[Path, Path], list[Path]]] = {
    "xnemo": xnemo.convert,
    "sd_vae": partial(published.convert, "sd_vae", codecs.sd),
    "svd_vae": partial(published.convert, "svd_vae", codecs.svd),
    "taesd": partial(published.convert, "taesd", codecs.taesd),
    "clip": partial(published.convert, "clip", clip_files.recognise),
    "wav2vec2": partial(published.convert, "wav2vec2", wav2vec2_files.recognise),
}


def main() -> None:
    parser = Parser("Turn published weights into weights of this package, for your own use.")
    parser.add_argument("kind", choices=sorted(KINDS), help="what the weights are of")
    parser.add_argument("--source", type=Path, required=True, help="folder (or file) as published")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint folder to write to")
    flags = parser.parse_args()
    for path in KINDS[flags.kind](flags.source, flags.output):
        print(path)


if __name__ == "__main__":
    run(main)
