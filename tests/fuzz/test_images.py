"""Damaged image files in all formats of Pillow are decoded or refused with one line."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fuzz.mutation import mutations
from PIL import Image

from hashbench.errors import HashbenchError
from hashbench.images.decoding import decode

CASES = Path(__file__).parent / "images"
PHOTO = Image.fromarray(np.random.RandomState(0).randint(0, 256, (16, 24, 3), dtype=np.uint8))


def originals() -> dict[str, list[bytes]]:
    """Return small valid files by format, in every pixel mode that the format and `decode` support."""
    Image.init()
    exif = Image.Exif()
    exif[274] = 6
    found: dict[str, list[bytes]] = {}
    for format_ in sorted(Image.SAVE):
        for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16"):
            output = BytesIO()
            try:
                PHOTO.convert("L" if mode == "I;16" else mode).convert(mode).save(output, format_, exif=exif)
                decode(output.getvalue())
            except (OSError, ValueError, KeyError, HashbenchError):
                continue
            found.setdefault(format_, []).append(output.getvalue())
    found["TIFF"] += [written(compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    return found


def written(**options: str) -> bytes:
    output = BytesIO()
    PHOTO.save(output, "TIFF", **options)
    return output.getvalue()


@pytest.mark.filterwarnings("ignore")  # as the program ignores Pillow's; pytest has filters of its own
def test_damaged_images_are_decoded_or_refused_in_one_line(
    tries: Callable[[int, int], int], caplog: pytest.LogCaptureFixture
) -> None:
    files = originals()
    assert {"JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"} <= files.keys()
    refused = 0
    for contents in files.values():
        for number, content in enumerate(mutations(contents, tries(60, 12_000))):
            try:
                image = decode(content, name="a.img", exif=True, truncated=number % 2 == 1)
            except HashbenchError as error:
                refused += 1
                message = str(error)
                assert message.startswith("a.img ")
                assert message.isprintable()
                assert len(message) < 400
            else:
                assert image.mode == "RGB"
    assert refused > 10
    assert caplog.messages == []
