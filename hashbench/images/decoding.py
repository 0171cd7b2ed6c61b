"""Image files to RGB, whatever their suffix says and however odd their pixels are."""

from __future__ import annotations

import logging
import threading
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from hashbench.errors import HashbenchError

_BLANK = b"\xef\xbb\xbf \t\r\n"  # what may stand before the tags of a web page, a byte order mark first
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")  # JPEG to TIFF
_PAGES = (b"<!doctype", b"<html", b"<?xml")
# What stands in a file in place of its content, by its first bytes; and the command that gets the content.
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": ("a Git LFS pointer", "git lfs pull"),
    b"/annex/objects/": ("a git-annex pointer", "git annex get"),
}

MAX_ASPECT_RATIO = 1000  # of the longer side to the shorter; images are enlarged until the shorter one fits

# Pillow's warnings, as of many pixels or odd EXIF data, name no file. They are ignored for the whole process,
# since `warnings.catch_warnings` is not safe in threads.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

_one_at_a_time = threading.Lock()


def looks_like_image(start: bytes) -> bool:
    """Return True for the first bytes of the usual image formats, and False for all others.

    Args:
        start: At least 12 bytes of the file.
    """
    return start.startswith(_SIGNATURES) or start[4:12] == b"ftypavif" or start[8:12] == b"WEBP"


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
        HashbenchError: The file cannot be read, is not a whole image, or has a side more than
            `MAX_ASPECT_RATIO` times as long as the other.
    """
    name = name or (str(source) if isinstance(source, Path) else "the image")
    try:
        return _read_truncated(source, exif) if truncated else _read(source, exif)
    except UnidentifiedImageError:
        raise HashbenchError(f"{name} {_instead(source)}") from None
    except Exception as error:  # Pillow's decoders raise errors of every type for damaged files
        if isinstance(error, HashbenchError) or str(error).startswith("DataLoader worker"):
            raise  # raised by a signal handler, not by Pillow
        reason = "out of memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__
        raise HashbenchError(f"{name} cannot be decoded ({reason}); replace it or take it out") from None


def _read(source: Path | bytes, exif: bool) -> Image.Image:
    with Image.open(source if isinstance(source, Path) else BytesIO(source)) as opened:
        if opened.format == "EPS":  # Pillow would run Ghostscript
            raise ValueError("PostScript is a program, not an image")
        if max(opened.size) > MAX_ASPECT_RATIO * min(opened.size):
            pixels = "{:,} × {:,} pixels".format(*opened.size)
            raise ValueError(f"expected an aspect ratio of at most {MAX_ASPECT_RATIO:,}:1, got {pixels}")
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
    """Say what a file is that is no image, and what to do."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(512)
    for start, (what, command) in _POINTERS.items():
        if source.startswith(start):
            return f"is {what}, not an image; run `{command}` where it was cloned"
    page = source.lstrip(_BLANK).lower().startswith(_PAGES)
    what = "empty" if not source else "a web page, not an image" if page else "not an image"
    return f"is {what}; download it again or take it out"
