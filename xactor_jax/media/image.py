"""Pictures from outside."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from xactor_jax.errors import InputError


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "h w 3"]:
    """An upright RGB picture from any file Pillow reads; transparency becomes white.

    Raises:
      InputError: the file is missing or is not a picture.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{path}: not a picture that Pillow can read") from None
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))
