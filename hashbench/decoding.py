"""Image files to RGB, whatever their suffix says and however odd their pixels are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from hashbench.errors import HashbenchError

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
        truncated: Accept a file that ends too early; what is missing of the image is grey or black.

    Raises:
        HashbenchError: The file cannot be read, or is not a whole image.
    """
    name = name or str(source)
    try:
        try:
            return _read(source, exif)
        except OSError as error:
            if not (truncated and "truncated" in str(error)):
                raise
            with _truncated_files():
                return _read(source, exif)
    except UnidentifiedImageError:
        raise HashbenchError(f"{name} {_instead(source)}; download it again or take it out") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HashbenchError(f"{name} cannot be decoded ({error}); replace it or take it out") from None


def _read(source: Path | bytes, exif: bool) -> Image.Image:
    with Image.open(source if isinstance(source, Path) else BytesIO(source)) as opened:
        image: Image.Image = ImageOps.exif_transpose(opened) if exif else opened
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers, of which none is white")
        if image.mode.startswith("I"):
            return _grey_of_16_bits(image).convert("RGB")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB")
        return image.convert("RGB")


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("its grey levels are not of 16 bits")
    return Image.fromarray(np.rint(levels / 257).astype(np.uint8))


@contextmanager
def _truncated_files() -> Iterator[None]:
    """Let Pillow accept truncated files; it has one switch for the whole process."""
    with _one_at_a_time:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _instead(source: Path | bytes) -> str:
    """What a file is that is no image."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(512)
    if not source:
        return "is empty"
    page = source.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
    return "is a web page, not an image" if page else "is not an image"
