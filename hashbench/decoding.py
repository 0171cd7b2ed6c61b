"""Image files to RGB, whatever their suffix says and however odd their pixels are."""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from hashbench.errors import HashbenchError

BLANK = b"\xef\xbb\xbf \t\r\n"  # what may stand before the tags of a web page, a byte order mark first

_one_at_a_time = threading.Lock()


def decode(
    source: Path | bytes, *, name: str | None = None, exif: bool = False, truncated: bool = False
) -> Image.Image:
    """Read an image as RGB, going by its content and not by its suffix.

    What is transparent becomes white. Grey levels of 16 bits are scaled to 8; Pillow alone would clip them.

    Args:
        source: The file, or its bytes.
        name: What to call it in errors; None: its path.
        exif: Turn the image as its EXIF orientation says.
        truncated: Accept a file that ends too early; what is missing of the image is grey or black, and the
            image's `info` has the key "truncated".

    Raises:
        HashbenchError: The file cannot be read, or is not a whole image.
    """
    name = name or (str(source) if isinstance(source, Path) else "the image")
    try:
        return _read_truncated(source, exif) if truncated else _read(source, exif)
    except UnidentifiedImageError:
        raise HashbenchError(f"{name} {_instead(source)}; download it again or take it out") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HashbenchError(f"{name} cannot be decoded ({error}); replace it or take it out") from None


def _read(source: Path | bytes, exif: bool) -> Image.Image:
    with Image.open(source if isinstance(source, Path) else BytesIO(source)) as opened:
        image: Image.Image = ImageOps.exif_transpose(opened) if exif else opened
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers, of which none is white")
        if image.mode == "I" and opened.format != "PNG":  # a PNG has 16 bits, also where Pillow says 32
            raise ValueError("its grey levels are of 32 bits, of which none is white")
        if image.mode.startswith("I"):
            return _grey_of_16_bits(image).convert("RGB")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB")
        return image.convert("RGB")


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))


def _read_truncated(source: Path | bytes, exif: bool) -> Image.Image:
    """Read a file that may end too early, one at a time: Pillow has one switch for the whole process."""
    with _one_at_a_time:
        try:
            return _read(source, exif)
        except OSError as error:
            if "truncated" not in str(error):
                raise
            before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
            try:
                image = _read(source, exif)
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = before
            image.info["truncated"] = True
            return image


def _instead(source: Path | bytes) -> str:
    """What a file is that is no image."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(512)
    if not source:
        return "is empty"
    page = source.lstrip(BLANK).lower().startswith((b"<!doctype", b"<html", b"<?xml"))
    return "is a web page, not an image" if page else "is not an image"
