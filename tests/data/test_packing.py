"""Packed copies of images."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from hashbench import HashbenchError, load_dataset
from hashbench.data import packing
from hashbench.data.dataset import Dataset, Split
from hashbench.data.options import FileOptions
from hashbench.data.packing import PackedImages, check_packed, pack, require_size, use_packed
from hashbench.images.decoding import decode
from hashbench.images.image_sets import FileImages
from hashbench.runtime import files
from hashbench.runtime.files import set_aside
from hashbench.runtime.locking import LOCK

SIZES = [(40, 30), (64, 64), (200, 150), (150, 201), (400, 90), (70, 300)]  # the first two are small
ORIENTATION = 0x0112


def smooth(width: int, height: int) -> Image.Image:
    """Return an image with a visible pattern that resizing twice preserves."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    pixels = np.stack([x, y, (1 + np.sin(9 * x + 5 * y)) / 2], axis=-1)
    return Image.fromarray((255 * pixels).astype(np.uint8))


def of_files(paths: list[Path], *, missing: int = 0, **options: Any) -> Dataset:
    """Return a dataset: two queries, the others as database, all but the last of these as training images."""
    chosen = FileOptions(**options)
    images = FileImages(paths, [path.name for path in paths], exif=chosen.exif, truncated=chosen.truncated)
    split = Split(images, np.arange(len(paths)) % 3)
    rest = split.subset(np.arange(2, len(paths) - missing))
    return Dataset.from_splits(
        "some", "lists", ("a", "b", "c"),
        train=rest, query=split.subset(np.arange(2)), database=rest, options=chosen,
    )  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.jpg" for number in range(len(SIZES))]
    for path, size in zip(paths, SIZES, strict=True):
        smooth(*size).save(path, quality=90)
    return paths


def all_images(dataset: Dataset) -> list[tuple[str, Image.Image]]:
    parts = (dataset.train, dataset.query.images, dataset.database.images)
    return [(name, part[row]) for part in parts for row, name in enumerate(part.ids)]


def test_what_a_packed_dataset_is(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    assert folder == tmp_path / "packed" / f"some-{dataset.options['files']}"
    packed = use_packed(dataset, tmp_path)
    assert {type(part) for part in (packed.train, packed.query.images, packed.database.images)} == {
        PackedImages
    }
    (file,) = folder.glob("*.bin")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.stem == sha256
    index_sha256 = hashlib.sha256((folder / "index.json").read_bytes()).hexdigest()
    assert (folder / "index.sha256").read_text() == f"{index_sha256}  index.json\n"
    assert packed.options == {
        **dataset.options,
        "packed": {"size": 64, "sha256": sha256, "index_sha256": index_sha256},
    }
    assert (packed.fingerprint, packed.warnings) == (dataset.fingerprint, dataset.warnings)
    assert packed.train.ids == dataset.train.ids
    assert packed.query.images.ids == dataset.query.images.ids
    assert packed.database.images.ids == dataset.database.images.ids
    assert packed.query.labels is dataset.query.labels
    assert packed.database.labels is dataset.database.labels


def test_small_images_are_stored_as_they_are(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    pack(dataset, tmp_path, 64)
    packed = use_packed(dataset, tmp_path).query.images
    assert [packed.content(row) for row in range(2)] == [path.read_bytes() for path in photos[:2]]


def test_large_images_become_smaller(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    pack(dataset, tmp_path, 64)
    packed = use_packed(dataset, tmp_path).train
    assert [image.size for image in packed] == [(85, 64), (64, 86), (284, 64), (64, 274)]
    for image, path in zip(packed, photos[2:], strict=True):
        once = decode(path).resize(image.size, Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(image, float) - np.asarray(once)).mean() < 1.5
        # And after the resize that follows in training and testing.
        twice = np.asarray(image.resize((48, 48)), float)
        assert np.abs(twice - np.asarray(decode(path).resize((48, 48)))).mean() < 1.5


def test_two_copies_are_equal(photos: list[Path], tmp_path: Path) -> None:
    first = pack(of_files(photos), tmp_path / "a", 64)
    second = pack(of_files(photos), tmp_path / "b", 64)
    other = pack(of_files(photos), tmp_path / "c", 60)
    digests = [json.loads((folder / "index.json").read_text())["sha256"] for folder in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]


def palette(path: Path, width: int, height: int) -> None:
    image = smooth(width, height).quantize(16)
    image.save(path, "PNG", transparency=bytes(range(0, 256, 16)))


def grey_of_16_bits(path: Path, width: int, height: int) -> None:
    levels = np.linspace(0, 65535, width * height).reshape(height, width).astype(np.uint16)
    Image.fromarray(levels).save(path, "PNG")


def cmyk(path: Path, width: int, height: int) -> None:
    smooth(width, height).convert("CMYK").save(path, "JPEG", quality=95)


def png(path: Path, width: int, height: int) -> None:
    smooth(width, height).save(path, "PNG")


def long_comment(path: Path, width: int, height: int) -> None:
    smooth(width, height).save(path, "GIF", comment=b"x" * 70_000)  # JPEG allows 65,533


@pytest.mark.parametrize("write", [palette, grey_of_16_bits, cmyk, png, long_comment])
def test_odd_files_come_out_as_decoded(
    photos: list[Path], tmp_path: Path, write: Callable[[Path, int, int], None]
) -> None:
    write(photos[0], 50, 40)
    write(photos[2], 160, 128)
    dataset = of_files(photos)
    pack(dataset, tmp_path, 64)
    packed = use_packed(dataset, tmp_path)
    assert np.array_equal(packed.query.images[0], decode(photos[0]))
    large = packed.train[0]
    assert (large.mode, large.size) == ("RGB", (80, 64))
    once = decode(photos[2]).resize((80, 64), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(large, float) - np.asarray(once)).mean() < 2.5


def test_a_file_that_is_no_image_is_named(photos: list[Path], tmp_path: Path) -> None:
    photos[3].write_bytes(b"<html>gone</html>")
    with pytest.raises(HashbenchError, match=r"3\.jpg is a web page, not an image"):
        pack(of_files(photos), tmp_path, 64)
    assert list((tmp_path / "packed").glob("[!.]*")) == []


def test_orientation_is_followed_where_it_was_chosen(photos: list[Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    smooth(40, 30).save(photos[0], exif=exif)
    smooth(160, 128).save(photos[2], exif=exif)
    for chosen, sizes in ((False, [(40, 30), (80, 64)]), (True, [(30, 40), (64, 80)])):
        dataset = of_files(photos, exif=chosen)
        pack(dataset, tmp_path, 64)
        packed = use_packed(dataset, tmp_path)
        assert [packed.query.images[0].size, packed.train[0].size] == sizes


def test_truncated_files_are_accepted_where_it_was_chosen(photos: list[Path], tmp_path: Path) -> None:
    for path in (photos[1], photos[2]):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(HashbenchError, match=r"[12]\.jpg cannot be decoded \(.*truncated"):
        pack(of_files(photos), tmp_path, 64)
    dataset = of_files(photos, truncated=True)
    pack(dataset, tmp_path, 64)
    packed = use_packed(dataset, tmp_path)
    assert np.array_equal(packed.query.images[1], decode(photos[1], truncated=True))
    assert packed.train[0].size == (85, 64)


def test_a_subset_and_positions(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    pack(dataset, tmp_path, 64)
    packed = use_packed(dataset, tmp_path).train
    some = packed.subset(np.array([3, 0]))
    assert (some.ids, len(some)) == (("5.jpg", "2.jpg"), 2)
    assert [some.content(row) for row in range(2)] == [packed.content(3), packed.content(0)]
    with pytest.raises(IndexError):
        packed[4]


def unbatched(images: list[Image.Image]) -> tuple[int, int]:
    return images[0].size


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_map_the_file_themselves(photos: list[Path], tmp_path: Path, start: str) -> None:
    dataset = of_files(photos)
    pack(dataset, tmp_path, 64)
    packed = use_packed(dataset, tmp_path).train
    sizes = [image.size for image in packed]  # the file is mapped from here on
    assert pickle.loads(pickle.dumps(packed)).content(1) == packed.content(1)
    loader: DataLoader[Any] = DataLoader(
        packed,
        batch_size=1, num_workers=2, multiprocessing_context=start, collate_fn=unbatched,
    )  # fmt: skip
    assert list(loader) == sizes


def test_pickling_carries_no_images(tmp_path: Path) -> None:
    file = tmp_path / "images.bin"
    file.write_bytes(bytes(1_000_000))
    images = PackedImages(file, np.array([[0, 1_000_000]]), ["a"])
    assert len(images.content(0)) == 1_000_000
    assert len(pickle.dumps(images)) < 2_000


def data(folder: Path) -> Path:
    """Return the file with the images."""
    (file,) = folder.glob("*.bin")
    return file


def swapped_ids(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["ids"][:2] = index["ids"][1::-1]
    (folder / "index.json").write_text(json.dumps(index))


CHANGED = r"index\.json has changed since it was written"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut images": (
        lambda folder: data(folder).write_bytes(data(folder).read_bytes()[:-10]),
        r"\w{64}\.bin has changed since it was written",
    ),
    "no images": (lambda folder: data(folder).unlink(), "No such file"),
    "no index": (lambda folder: (folder / "index.json").unlink(), "No such file"),
    "garbage": (lambda folder: (folder / "index.json").write_bytes(b"\xff\xfe{"), CHANGED),
    "half an index": (lambda folder: (folder / "index.json").write_text('{"size": 64, "sha'), CHANGED),
    "another JSON": (lambda folder: (folder / "index.json").write_text("[1, 2]"), CHANGED),
    "swapped ids": (swapped_ids, CHANGED),
    "another checksum": (lambda folder: (folder / "index.sha256").write_text("0"), CHANGED),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_copy(
    photos: list[Path], tmp_path: Path, damage: Callable[[Path], object], why: str
) -> None:
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    damage(folder)
    match = (
        rf"^the packed copy \S*/packed/some-\w+ is damaged \(.*{why}.*\); prepare it again with --pack, "
        "or pass --data packed=false$"
    )
    with pytest.raises(HashbenchError, match=match) as caught:
        use_packed(dataset, tmp_path)
    assert caught.value.exit_code == 1
    assert check_packed(dataset, tmp_path) == str(caught.value)
    pack(dataset, tmp_path, 64)  # replaces it
    assert check_packed(dataset, tmp_path) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ends": [float("inf")] * 3}, "expected finite numbers, got Infinity"),
        ({"ends": [float("nan")] * 3}, "expected finite numbers, got NaN"),
        ('{"ends": [' + "9" * 5001 + "]}", "expected a number of at most 20 digits, got 5,001"),
        ({"ends": [1.0, 2.0, 3.0]}, r"index\.json is not the index of a packed copy"),
        ({"ends": [-1, 2, 3]}, r"index\.json is not the index of a packed copy"),
        ({"ends": [2, 1, 3]}, r"index\.json is not the index of a packed copy"),
        ({"ends": [1, 2, 10**19]}, r"index\.json does not have the size of \w{64}\.bin"),
        ({"ids": [["a"], ["b"], ["c"]]}, r"index\.json is not the index of a packed copy"),
        ({"sha256": "../" * 21 + "x"}, r"index\.json is not the index of a packed copy"),
        ({"size": "64"}, r"index\.json is not the index of a packed copy"),
        ({"size": None}, r"index\.json is not the index of a packed copy"),
        ([], r"index\.json is not the index of a packed copy"),
        ("[" * 5000, "expected at most 40 levels of lists and objects, got more"),
    ],
)
def test_an_index_that_its_checksum_fits(photos: list[Path], tmp_path: Path, change: Any, why: str) -> None:
    dataset = of_files(photos)
    index = pack(dataset, tmp_path, 64) / "index.json"
    if isinstance(change, dict):
        change = {**json.loads(index.read_text()), **change}
    text = change if isinstance(change, str) else json.dumps(change)
    index.write_text(text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    index.with_suffix(".sha256").write_text(f"{sha256}  index.json\n")
    with pytest.raises(
        HashbenchError, match=rf"^the packed copy \S* is damaged \({why}.*\); prepare it again"
    ):
        use_packed(dataset, tmp_path)


@pytest.mark.parametrize("name", ["*.bin", "index.json", "index.sha256"])
def test_every_changed_byte_is_found(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(packing, "PIECE", 10_000)  # several, and one that is shorter
    dataset = of_files(photos)
    (file,) = pack(dataset, tmp_path, 64).glob(name)
    content = file.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(len(content), size=75):
        changed = bytearray(content)
        changed[place] ^= random.integers(1, 256)
        file.write_bytes(changed)
        with pytest.raises(HashbenchError, match="has changed since it was written"):
            use_packed(dataset, tmp_path)
    file.write_bytes(content + b"\0")
    with pytest.raises(HashbenchError, match="has changed since it was written"):
        use_packed(dataset, tmp_path)
    file.write_bytes(content)
    use_packed(dataset, tmp_path)


def test_a_copy_of_an_older_version(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    (folder / "index.sha256").unlink()
    with pytest.raises(
        HashbenchError,
        match=r"has no index\.sha256, .* cannot be checked; prepare it again with --pack, or",
    ):
        use_packed(dataset, tmp_path)
    pack(dataset, tmp_path, 64)
    assert use_packed(dataset, tmp_path).options["packed"]["size"] == 64


def test_one_process_of_a_machine_checks(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = of_files(photos)
    file = data(pack(dataset, tmp_path, 64))
    file.write_bytes(bytes(file.stat().st_size))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert use_packed(dataset, tmp_path).options["packed"]["size"] == 64
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(HashbenchError, match="has changed"):
        use_packed(dataset, tmp_path)


def test_the_order_of_the_images_is_in_the_options(photos: list[Path], tmp_path: Path) -> None:
    """Images with equal content are identified by their ids, whichever is stored first."""
    photos[1].write_bytes(photos[0].read_bytes())
    one = of_files(photos)
    packs = []
    for number, paths in enumerate((photos, [photos[1], photos[0], *photos[2:]])):
        pack(of_files(paths), tmp_path / str(number), 64)
        packs.append(use_packed(of_files(paths), tmp_path / str(number)).options)
    assert [options["files"] for options in packs] == [one.options["files"]] * 2
    assert packs[0]["packed"]["sha256"] == packs[1]["packed"]["sha256"]
    assert packs[0]["packed"]["index_sha256"] != packs[1]["packed"]["index_sha256"]


def test_a_copy_that_goes_away(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    packed = use_packed(dataset, tmp_path).train
    data(folder).unlink()
    with pytest.raises(HashbenchError, match=r"\.bin cannot be read \(.*No such file.*prepare it again"):
        packed[0]


def change(photos: list[Path]) -> Dataset:
    """Return the dataset after replacing an image by a larger one."""
    smooth(500, 400).save(photos[3])
    return of_files(photos)


def test_a_copy_of_other_files_is_not_used(photos: list[Path], tmp_path: Path) -> None:
    before = of_files(photos)
    pack(before, tmp_path, 64)
    for dataset in (of_files(photos, missing=2), change(photos)):
        assert dataset.options["files"] != before.options["files"]
        same = use_packed(dataset, tmp_path)
        assert same.train is dataset.train
        assert same.options == dataset.options
        (warning,) = same.warnings
        assert warning.startswith(f"no packed copy in {tmp_path / 'packed'} has these images")
        pack(dataset, tmp_path, 64)
        assert use_packed(dataset, tmp_path).options["packed"]["size"] == 64


def test_a_copy_that_is_there_is_not_made_again(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    monkeypatch.setattr(FileImages, "__getitem__", None)
    assert pack(dataset, tmp_path, 64) == folder


def test_a_copy_that_is_damaged_after_the_check(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    packed = use_packed(dataset, tmp_path)
    content = bytearray(data(folder).read_bytes())
    content[2_000:3_000] = bytes(1_000)
    data(folder).write_bytes(content)
    with pytest.raises(HashbenchError, match=r"is damaged at \d\.jpg; prepare it again with --pack"):
        all_images(packed)


def test_one_id_for_two_files_cannot_be_packed(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    assert isinstance(dataset.train, FileImages)
    other = FileImages([photos[0], *dataset.train.paths[1:]], dataset.train.ids)
    with pytest.raises(HashbenchError, match="some: 1 ids belong to different files in two parts"):
        pack(replace(dataset, train=other), tmp_path, 64)


def packs(photos: list[Path], root: Path) -> None:
    pack(of_files(photos), root, 64)


def test_processes_pack_one_after_the_other(photos: list[Path], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=packs, args=(photos, tmp_path)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert check_packed(of_files(photos), tmp_path) is None
    assert len([*(tmp_path / "packed").glob("[!.]*")]) == 1


@pytest.mark.parametrize("option", ["exif", "truncated"])
def test_a_copy_made_with_other_options_is_not_used(photos: list[Path], tmp_path: Path, option: str) -> None:
    pack(of_files(photos), tmp_path, 64)
    dataset = of_files(photos, **{option: True})
    same = use_packed(dataset, tmp_path)
    assert same.train is dataset.train
    (warning,) = same.warnings
    assert "is not used, since it was created with exif=False, truncated=False; prepare it again" in warning


def test_an_interrupted_pack_leaves_the_old_copy(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def interrupted(self: FileImages, index: int) -> Image.Image:
        if self.ids[index] == "4.jpg":
            raise KeyboardInterrupt
        return decode(Path(self.paths[index]))

    monkeypatch.setattr(FileImages, "__getitem__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(dataset, tmp_path, 32)
    assert list((tmp_path / "packed").glob("[!.]*")) == [folder]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_new_copy_replaces_the_old_one(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    assert pack(dataset, tmp_path, 32) == folder
    assert list((tmp_path / "packed").glob("[!.]*")) == [folder]
    packed = use_packed(dataset, tmp_path)
    assert packed.options["packed"]["size"] == 32
    assert packed.query.images[1].size == (32, 32)


def test_a_copy_is_replaced_at_once_and_on_the_disk(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if files._renameat2() is None:
        pytest.skip("this system cannot exchange folders")
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    synced, exchange = [], files._exchange

    def exchanged(new: Path, old: Path) -> bool:
        assert {path.name for path in new.iterdir()} < {path.name for path in synced}
        assert exchange(new, old)
        return True

    monkeypatch.setattr(files, "sync", synced.append)
    monkeypatch.setattr(files, "_exchange", exchanged)
    pack(dataset, tmp_path, 32)
    assert use_packed(dataset, tmp_path).options["packed"]["size"] == 32
    assert set((tmp_path / "packed").iterdir()) == {folder, tmp_path / "packed" / LOCK}


def test_a_copy_that_is_set_aside_is_read_and_put_back(photos: list[Path], tmp_path: Path) -> None:
    """Another process sees this state if folders cannot be exchanged, or if a process was killed."""
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    expected = use_packed(dataset, tmp_path).options
    folder.rename(set_aside(folder))
    assert use_packed(dataset, tmp_path).options == expected
    pack(dataset, tmp_path, 64)
    assert set((tmp_path / "packed").iterdir()) == {folder, tmp_path / "packed" / LOCK}


def test_a_copy_that_is_replaced_while_it_is_read(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = of_files(photos)
    folder = pack(dataset, tmp_path, 64)
    parts = packing._packed_parts

    def replaced(*arguments: Any) -> dict[str, Split]:
        monkeypatch.setattr(packing, "_packed_parts", parts)
        folder.rename(tmp_path / "old")
        pack(dataset, tmp_path, 48)
        return parts(*arguments)

    monkeypatch.setattr(packing, "_packed_parts", replaced)
    assert use_packed(dataset, tmp_path).options["packed"]["size"] == 48


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), HashbenchError("3.jpg")])
def test_a_pack_that_fails_leaves_nothing(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(packing, "_piece_digests", fail)
    with pytest.raises(HashbenchError, match="free disk space|3.jpg"):
        pack(of_files(photos), tmp_path, 64)
    assert [path.name for path in (tmp_path / "packed").iterdir()] == [LOCK]


def test_what_a_killed_pack_left_is_removed_by_the_next(photos: list[Path], tmp_path: Path) -> None:
    """Leftovers of another dataset are removed too, and even if the copy already exists."""
    folder = pack(of_files(photos), tmp_path, 64)
    left = [folder.with_name(name) for name in (f".{folder.name}.new", ".tmp0abc.new")]
    for path in left:
        (path / "inside").mkdir(parents=True)
    pack(of_files(photos), tmp_path, 64)
    assert [path.exists() for path in left] == [False, False]


def test_a_copy_that_cannot_be_written(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "packed").write_text("a file where the folder should be")
    with pytest.raises(HashbenchError, match=r"packed/some-\w+ cannot be written \(.*\); free disk space"):
        pack(of_files(photos), tmp_path, 64)


def test_images_in_memory_need_no_copy(tmp_path: Path) -> None:
    dataset = load_dataset("digits", root=tmp_path)
    with pytest.raises(
        HashbenchError, match="^digits needs no packed copy, since its images are not separate files"
    ):
        pack(dataset, tmp_path, 64)
    assert use_packed(dataset, tmp_path) is dataset


def test_no_copy_no_change(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    assert use_packed(dataset, tmp_path) is dataset


def test_a_copy_must_be_as_large_as_a_run_needs(photos: list[Path], tmp_path: Path) -> None:
    dataset = of_files(photos)
    pack(dataset, tmp_path, 64)
    packed = use_packed(dataset, tmp_path)
    require_size(dataset, 224)
    require_size(packed, 64)
    with pytest.raises(
        HashbenchError,
        match=r"^the packed copy of some@lists has images of 64 pixels, but the run needs 65; "
        r"prepare it again with --pack 65, or pass --data packed=false$",
    ):
        require_size(packed, 65)
