"""Decoding of image files to RGB, by their content and not by their suffix."""

from __future__ import annotations

import logging
import threading
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from hashbench.errors import HashbenchError

_BLANK = b"\xef\xbb\xbf \t\r\n"  # may precede the tags of a web page; the first is a byte order mark
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")  # JPEG to TIFF
_PAGES = (b"<!doctype", b"<html", b"<?xml")
# Placeholders of large files by their first bytes, with the command that downloads the content.
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": ("a Git LFS pointer", "git lfs pull"),
    b"/annex/objects/": ("a git-annex pointer", "git annex get"),
}

MAX_ASPECT_RATIO = 1000  # longer side to shorter side, of which the shorter is resized to the input size

# Pillow's warnings, such as about invalid EXIF data, name no file. They are ignored in the whole process,
# since `warnings.catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

_truncated_lock = threading.Lock()


def looks_like_image(start: bytes) -> bool:
    """Return True if a file starts like one of the usual image formats.

    Args:
        start: At least 12 bytes of the file.
    """
    return start.startswith(_SIGNATURES) or start[4:12] == b"ftypavif" or start[8:12] == b"WEBP"


def decode(
    source: Path | bytes, *, name: str | None = None, exif: bool = False, truncated: bool = False
) -> Image.Image:
    """Read an image as RGB; its format is detected from its content, not from its suffix.

    Transparent pixels become white. Grey levels of 16 bits are scaled to 8, where Pillow would clip them.

    Args:
        source: The file, or its bytes.
        name: Name of the image in errors; None: its path.
        exif: Rotate the image according to its EXIF orientation.
        truncated: Accept a file that ends too early. The missing pixels are grey or black, and the image's
            `info` has the key "truncated".

    Raises:
        HashbenchError: The file cannot be read, is not a complete image, or exceeds `MAX_ASPECT_RATIO`.
    """
    name = name or (str(source) if isinstance(source, Path) else "the image")
    try:
        return _read_truncated(source, exif) if truncated else _read(source, exif)
    except UnidentifiedImageError:
        raise HashbenchError(f"{name} {_describe(source)}") from None
    except Exception as error:  # Pillow's decoders raise errors of all types for damaged files
        if isinstance(error, HashbenchError) or str(error).startswith("DataLoader worker"):
            raise  # raised by a signal handler, not by Pillow
        reason = "out of memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__
        raise HashbenchError(f"{name} cannot be decoded ({reason}); replace or remove it") from None


def _read(source: Path | bytes, exif: bool) -> Image.Image:
    with Image.open(source if isinstance(source, Path) else BytesIO(source)) as opened:
        if opened.format == "EPS":  # Pillow would run Ghostscript
            raise ValueError("PostScript is not supported")
        if max(opened.size) > MAX_ASPECT_RATIO * min(opened.size):
            pixels = "{:,} × {:,} pixels".format(*opened.size)
            raise ValueError(f"expected an aspect ratio of at most {MAX_ASPECT_RATIO:,}:1, got {pixels}")
        image: Image.Image = ImageOps.exif_transpose(opened) if exif else opened
        if image.mode == "F":
            raise ValueError("floating-point pixels are not supported")
        if image.mode == "I" and opened.format != "PNG":  # a PNG has 16 bits, even if Pillow reports 32
            raise ValueError("grey levels of 32 bits are not supported")
        if image.mode.startswith("I"):
            grey = np.rint(np.asarray(image) / 257).astype(np.uint8)
            return Image.fromarray(grey).convert("RGB")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB")
        return image.convert("RGB")


def _read_truncated(source: Path | bytes, exif: bool) -> Image.Image:
    """Read a file that may be truncated; the lock guards Pillow's setting, which is global."""
    with _truncated_lock:
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


def _describe(source: Path | bytes) -> str:
    """Return what a file is that is not an image, and what to do about it."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(512)
    for start, (what, command) in _POINTERS.items():
        if source.startswith(start):
            return f"is {what}, not an image; run `{command}` in its repository"
    page = source.lstrip(_BLANK).lower().startswith(_PAGES)
    what = "empty" if not source else "a web page, not an image" if page else "not an image"
    return f"is {what}; download it again or remove it"
