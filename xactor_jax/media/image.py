"""Pictures from outside."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from xactor_jax.errors import InputError

MOST_PIXELS = 100_000_000
# EPS starts another program, WMF a part of the system.
_FORMATS_NOT_READ = {"EPS", "WMF"}


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "h w 3"]:
    """An upright RGB picture from any file Pillow reads; transparency becomes white.

    Raises:
      InputError: the file is missing, is not a picture, or has more than 100 million pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check its name")
    Image.init()
    formats = [name for name in Image.OPEN if name not in _FORMATS_NOT_READ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged tags, and of sizes that are checked here
            image = Image.open(path, formats=formats)
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"{path}: {image.width} x {image.height} pixels are too many; reduce it"
                )
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # Pillow would clip it to 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            upright = upright.convert("RGBA")
    except InputError:
        raise
    except PermissionError:
        raise InputError(f"{path}: may not be read; change its permissions") from None
    except Exception:  # damaged files make Pillow's readers raise nearly anything
        raise InputError(
            f"{path}: not a picture that Pillow can read; give a PNG or JPEG"
        ) from None
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))
