"""Tests of the decoding of image files."""

from __future__ import annotations

import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from hashbench.errors import HashbenchError
from hashbench.images.decoding import MAX_ASPECT_RATIO, decode, looks_like_image
from hashbench.runtime.preemption import PreemptionError

DAMAGED = Path(__file__).parents[1] / "damaged"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PHOTO = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 60, 3), dtype=np.uint8))


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    output = BytesIO()
    image.save(output, format_, **options)
    return output.getvalue()


def test_decode_ignores_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "n02105855_2933.JPEG"
    path.write_bytes(saved(PHOTO, "PNG"))
    assert decode(path).mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decode(path)), np.asarray(PHOTO))
    assert decode(path.read_bytes()).tobytes() == decode(path).tobytes()


def test_grey_becomes_rgb() -> None:
    image = decode(saved(Image.new("L", (60, 40), 7), "JPEG"))
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (60, 40), (7, 7, 7))


def test_cmyk_becomes_rgb() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = decode(saved(red, "JPEG"))
    assert image.mode == "RGB"
    np.testing.assert_allclose(image.getpixel((8, 8)), (255, 0, 0), atol=3)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"<html>gone</html>", "is a web page, not an image"),
        (b"\n <!DOCTYPE html>", "is a web page, not an image"),
        (b'<?xml version="1.0"?>', "is a web page, not an image"),
        (b"just text", "is not an image"),
    ],
)
def test_files_that_are_not_images_are_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for truncated in (False, True):
        with pytest.raises(HashbenchError, match=rf"{path} {problem}; download it again or remove it"):
            decode(path, truncated=truncated)
        with pytest.raises(HashbenchError, match=f"^im1 in images.bin {problem}"):
            decode(content, name="im1 in images.bin", truncated=truncated)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (LFS_POINTER, "is a Git LFS pointer, not an image; run `git lfs pull` in its repository"),
        (
            b"/annex/objects/SHA256E-s9--0.jpg\n",
            "is a git-annex pointer, not an image; run `git annex get` in its repository",
        ),
    ],
)
def test_pointers_are_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(HashbenchError, match=rf"a\.jpg {problem}"):
        decode(tmp_path / "a.jpg")


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "MPO", "AVIF"])
def test_first_bytes_of_images(format_: str) -> None:
    if format_ == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    assert looks_like_image(saved(PHOTO, format_)[:12])


@pytest.mark.parametrize(
    "start", [b"", b"\xff\xd8", b"<html>", LFS_POINTER[:12], b"RIFF\0\0\0\0WAVE", b"\0" * 12]
)
def test_first_bytes_of_other_files(start: bytes) -> None:
    assert not looks_like_image(start)


def test_missing_and_cut_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(HashbenchError, match=r"absent\.jpg cannot be decoded \(.*No such file"):
        decode(tmp_path / "absent.jpg")

    (tmp_path / "cut.jpg").write_bytes(saved(PHOTO, "JPEG")[:10])
    with pytest.raises(HashbenchError, match=r"cut\.jpg cannot be decoded \(Truncated File Read\)"):
        decode(tmp_path / "cut.jpg")


def unknown_pixel_format() -> bytes:
    content = bytearray(saved(PHOTO, "DDS"))
    content[80:88] = b"\x04\0\0\0ABCD"  # DDPF_FOURCC and an undefined code
    return bytes(content)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("name", ["no_image_item.avif", "not_implemented.avif"])
@pytest.mark.parametrize("truncated", [False, True])
def test_a_damaged_avif_is_named(name: str, truncated: bool) -> None:
    with pytest.raises(
        HashbenchError, match=rf"{name} cannot be decoded \(Failed to .*\); replace or remove"
    ):
        decode(DAMAGED / name, truncated=truncated)


def test_unknown_pixel_formats_are_named() -> None:
    with pytest.raises(
        HashbenchError, match=r"^a\.dds cannot be decoded \(Unimpl.*\); replace or remove it$"
    ):
        decode(unknown_pixel_format(), name="a.dds")


def test_postscript_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was run"))
    with pytest.raises(HashbenchError, match=r"^a\.jpg cannot be decoded \(PostScript is not supported"):
        decode(saved(PHOTO, "EPS"), name="a.jpg")


def test_out_of_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(HashbenchError, match=r"^a\.png cannot be decoded \(out of memory\)"):
        decode(b"", name="a.png")


@pytest.mark.parametrize(
    "error",
    [PreemptionError("stopped"), RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")],
)
def test_errors_of_signal_handlers_are_not_caught(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Image, "open", interrupted)
    with pytest.raises(type(error)) as raised:
        decode(b"")
    assert raised.value is error


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (2 * MAX_ASPECT_RATIO + 1, 2)])
def test_an_extreme_aspect_ratio_is_refused(size: tuple[int, int]) -> None:
    """Refuse an image that would take gigabytes after its shorter side is resized."""
    got = f"{size[0]:,} × {size[1]:,} pixels"
    message = rf"^a\.png cannot be decoded \(expected an aspect ratio of at most 1,000:1, got {got}\); "
    with pytest.raises(HashbenchError, match=message):
        decode(saved(Image.new("1", size), "PNG"), name="a.png")
    assert decode(saved(Image.new("1", (2 * MAX_ASPECT_RATIO, 2)), "PNG")).size == (2000, 2)


def test_warnings_of_pillow_are_not_shown() -> None:
    """Use another process, since pytest resets the filters of warnings."""
    script = (
        "from io import BytesIO\n"
        "from PIL import Image\n"
        "from hashbench.images.decoding import decode\n"
        "Image.MAX_IMAGE_PIXELS = 100\n"
        "exif = b'Exif\\0\\0II*\\0\\x08\\0\\0\\0\\x09'\n"  # announces 9 entries and has none
        "for options in ({'format': 'PNG'}, {'format': 'JPEG', 'exif': exif}):\n"
        "    file = BytesIO()\n"
        "    Image.new('RGB', (15, 10)).save(file, **options)\n"
        "    print(decode(file.getvalue(), exif=True).size)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(15, 10)\n" * 2, "")


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_a_truncated_file_is_an_error_unless_accepted(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "a.jpg"
    content = saved(PHOTO.resize((60, 128)), format_)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        HashbenchError, match=r"a\.jpg cannot be decoded \(.*truncated.*\); replace or remove"
    ):
        decode(path)
    image, whole = np.asarray(decode(path, truncated=True)), np.asarray(decode(content))
    assert image.shape == whole.shape
    np.testing.assert_array_equal(image[:32], whole[:32])
    assert (image[-1] == image[-1, 0]).all()  # the last row is missing
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(HashbenchError, match="truncated"):
        decode(path)


def palette(transparency: bytes | int) -> bytes:
    """Return a palette image, red at the left and blue at the right, with transparent colours."""
    image = Image.new("P", (4, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (2, 0, 4, 2))
    return saved(image, "PNG", transparency=transparency)


def with_alpha(mode: str, left: Any, right: Any) -> bytes:
    image = Image.new(mode, (4, 2), left)
    image.paste(right, (2, 0, 4, 2))
    return saved(image, "PNG")


@pytest.mark.parametrize(
    ("content", "left", "right"),
    [
        (palette(1), (255, 0, 0), (255, 255, 255)),
        (palette(b"\xff\x00"), (255, 0, 0), (255, 255, 255)),
        (palette(b"\x80\xff"), (255, 127, 127), (0, 0, 255)),
        (with_alpha("RGBA", (10, 20, 30, 255), (10, 20, 30, 0)), (10, 20, 30), (255, 255, 255)),
        (with_alpha("RGBA", (0, 0, 0, 51), (0, 0, 0, 255)), (204, 204, 204), (0, 0, 0)),
        (with_alpha("LA", (90, 255), (90, 0)), (90, 90, 90), (255, 255, 255)),
        (saved(Image.new("RGB", (4, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), (255,) * 3, (255,) * 3),
    ],
)
def test_transparent_pixels_become_white(
    content: bytes, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(content)
    assert image.mode == "RGB"
    assert (image.getpixel((0, 0)), image.getpixel((3, 1))) == (left, right)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("exif", [False, True])
def test_grey_of_16_bits_is_scaled(format_: str, mode: str, exif: bool) -> None:
    levels = np.arange(65536).reshape(256, 256)
    image = Image.frombytes(mode, (256, 256), levels.astype("<u2" if mode == "I;16" else ">u2").tobytes())
    if format_ == "TIFF":
        assert Image.open(BytesIO(saved(image, format_))).mode == mode
    decoded = np.asarray(decode(saved(image, format_), exif=exif))
    np.testing.assert_array_equal(decoded, ((levels + 128) // 257)[:, :, None].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Image.new("I", (2, 2), 70_000), "grey levels of 32 bits are not"),
        (Image.new("I", (2, 2), 200), "grey levels of 32 bits are not"),
        (Image.new("F", (2, 2), 0.5), "floating-point pixels are not"),
    ],
)
def test_unsupported_pixels_are_an_error(image: Image.Image, problem: str) -> None:
    with pytest.raises(HashbenchError, match=rf"a\.tif cannot be decoded \({problem}"):
        decode(saved(image, "TIFF"), name="a.tif")


def test_exif_orientation_is_applied_on_request() -> None:
    exif = Image.Exif()
    exif[274] = 6  # rotate by 90° clockwise
    content = saved(PHOTO, "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(content)), np.asarray(PHOTO))
    turned = np.asarray(decode(content, exif=True))
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(PHOTO), -1))
