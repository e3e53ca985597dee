"""Pictures of every kind come upright, in RGB and on white; what is no picture is named."""

import numpy as np
import pytest
from PIL import Image

from xactor_jax.errors import InputError
from xactor_jax.media.image import read_image

RED, BLUE = (200, 30, 40), (20, 60, 220)


def two_colours(height=30, width=40) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = RED, BLUE
    return Image.fromarray(picture)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.tiff"])
def test_any_format_is_read(tmp_path, name):
    two_colours().save(tmp_path / name)
    picture = read_image(tmp_path / name)
    assert picture.shape == (30, 40, 3) and picture.dtype == np.uint8
    # Lossy formats let the edge ring a little; the colours are 150 levels apart.
    assert np.abs(picture[:, :12] - np.int32(RED)).max() <= 12
    assert np.abs(picture[:, -12:] - np.int32(BLUE)).max() <= 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "RGBA"])
def test_any_colours_are_read(tmp_path, mode):
    white = Image.new("RGB", (40, 30), "white").convert(mode)
    white.save(tmp_path / "a.tiff")
    picture = read_image(tmp_path / "a.tiff")
    assert picture.shape == (30, 40, 3) and picture.min() >= 253


def test_sixteen_bits_are_scaled(tmp_path):
    levels = np.linspace(0, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert np.abs(picture - levels[..., None] / 257).max() <= 1


def test_transparency_becomes_white(tmp_path):
    picture = two_colours().convert("RGBA")
    picture.putalpha(Image.fromarray(np.tile(np.uint8([0] * 20 + [255] * 20), (30, 1))))
    picture.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert (read[:, :20] == 255).all() and (read[:, 20:] == BLUE).all()


def test_phone_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was held a quarter turn to the left
    two_colours().save(tmp_path / "a.png", exif=exif)
    read = read_image(tmp_path / "a.png")
    assert read.shape == (40, 30, 3)
    assert (read[:20] == RED).all() and (read[20:] == BLUE).all()


def test_unusable_files_are_named(tmp_path):
    two_colours(300, 400).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    for name, message in (
        ("none.png", "no such file"),
        (".", "no such file"),
        ("half.png", "not a picture"),
        ("text.png", "not a picture"),
        ("empty.png", "not a picture"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_image(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
