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
        raise InputError(f"{path}: no such file; check its name")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # Pillow would clip it to 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            upright = upright.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError):
        raise InputError(
            f"{path}: not a picture that Pillow can read; give a PNG or JPEG"
        ) from None
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))
