"""Downloads before loading, and list files for other code."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from hashbench.data.dataset import Dataset, DatasetPlugin, Split
from hashbench.data.download import Archive
from hashbench.data.prepare import ensure, export_lists
from hashbench.data.protocol import Protocol
from hashbench.errors import HashbenchError, MissingDataError, UsageError
from hashbench.images.image_sets import ArrayImages, FileImages


class Colours(DatasetPlugin):
    """A dataset with two images in a folder."""

    protocols: ClassVar[Mapping[str, Protocol]] = {"all": Protocol("one query, one other", 1, 1, 1)}
    downloads: ClassVar[Sequence[Archive]] = ()

    def load(self, root: Path, protocol: str) -> Dataset:
        """See `DatasetPlugin.load`."""
        files = sorted((root / "colours" / "images").glob("*.png"))
        if len(files) != 2:
            raise MissingDataError("colours: no images")
        everything = Split(FileImages(files, [file.name for file in files]), np.array([0, 1]))
        query, rest = everything.subset(np.array([0])), everything.subset(np.array([1]))
        return Dataset.from_splits(
            "colours", protocol, ["red", "blue"], train=rest, query=query, database=rest
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Serve an archive of the two images."""
    folder = tmp_path / "site"
    folder.mkdir()
    with zipfile.ZipFile(folder / "colours.zip", "w") as archive:
        for name in ("red", "blue"):
            Image.new("RGB", (8, 8), name).save(tmp_path / f"{name}.png")
            archive.write(tmp_path / f"{name}.png", f"images/{name}.png")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_what_is_missing_is_downloaded_and_unpacked(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = hashlib.md5((tmp_path / "site/colours.zip").read_bytes()).hexdigest()
    archive = Archive(f"{site}/colours.zip", md5, "colours/colours.zip", "colours/images")
    monkeypatch.setattr(Colours, "downloads", (archive,))
    root = tmp_path / "data"
    dataset = ensure("colours", Colours(), root, "all")
    assert dataset.query.images.ids == ("blue.png",)
    assert (root / "colours/colours.zip").is_file()

    (tmp_path / "site/colours.zip").unlink()  # what is there is not asked for again
    assert ensure("colours", Colours(), root, "all").fingerprint == dataset.fingerprint


def test_what_may_not_be_downloaded_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(HashbenchError, match="colours: no images"):
        ensure("colours", Colours(), tmp_path, "all")


@pytest.mark.parametrize("error", [HashbenchError("damaged"), UsageError("wrong option")])
def test_other_faults_start_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: HashbenchError
) -> None:
    def load(self: Colours, root: Path, protocol: str) -> Dataset:
        raise error

    monkeypatch.setattr(Colours, "load", load)
    monkeypatch.setattr(Colours, "downloads", (Archive("http://127.0.0.1:9/x.zip", "0" * 32, "x.zip", "x"),))
    with pytest.raises(type(error), match=str(error)):
        ensure("colours", Colours(), tmp_path, "all")


def in_memory() -> Dataset:
    images = ArrayImages(np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3), ["t/0", "t/1", "q/0", "d/0"])
    everything = Split(images, np.array([[1, 0], [1, 1], [0, 1], [0, 0]]))
    train, query, database = (everything.subset(np.array(rows)) for rows in ([0, 1], [2], [1, 3]))
    return Dataset.from_splits("toy", "p", ["cat", "big dog"], train=train, query=query, database=database)


def test_lists_are_the_usual_format(tmp_path: Path) -> None:
    files, base = export_lists(in_memory(), tmp_path / "new/lists")
    assert base == tmp_path / "new/lists"
    assert [file.name for file in files] == ["train.txt", "test.txt", "database.txt", "classes.txt"]
    assert [file.read_text() for file in files] == [
        "t/0.png 1 0\nt/1.png 1 1\n",
        "q/0.png 0 1\n",
        "t/1.png 1 1\nd/0.png 0 0\n",
        "cat\nbig dog\n",
    ]
    assert sorted(path.name for path in (tmp_path / "new/lists").iterdir()) == sorted(f.name for f in files)


def test_images_in_memory_are_written_on_request(tmp_path: Path) -> None:
    dataset = in_memory()
    export_lists(dataset, tmp_path, write_images=True)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert written == {"t/0.png", "t/1.png", "q/0.png", "d/0.png"}
    with Image.open(tmp_path / "d/0.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(dataset.database.images[1]))


def test_images_in_files_are_not_written(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    everything = Split(FileImages([tmp_path / "a.png", tmp_path / "b.png"], ["a", "b"]), np.array([0, 1]))
    rest = everything.subset(np.array([1]))
    dataset = Dataset.from_splits(
        "toy", "p", ["x", "y"], train=rest, query=everything.subset(np.array([0])), database=rest
    )
    with pytest.raises(HashbenchError, match="the images of toy are already files"):
        export_lists(dataset, tmp_path / "lists", write_images=True)
    _, base = export_lists(dataset, tmp_path / "lists")
    assert base == tmp_path
    assert (tmp_path / "lists/test.txt").read_text() == "a.png 1 0\n"


def test_lists_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HashbenchError, match=r"file/lists cannot be written|file.* cannot be written"):
        export_lists(in_memory(), tmp_path / "file" / "lists")
