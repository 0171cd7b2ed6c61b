"""Tests of the feature cache: complete keys, atomic writes, and disk errors that do not stop a run."""

import copy
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.configs import run_config
from helpers.owning_process import other_process
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from hashbench import ArrayImages, Backbone, Images, create_backbone
from hashbench.config import RunConfig
from hashbench.data.packing import PackedImages
from hashbench.encoding import feature_cache, feature_keys
from hashbench.encoding.feature_cache import FeatureMetadata, cache_folder, load, store, stored
from hashbench.encoding.feature_keys import content_key, has_versions
from hashbench.encoding.features import FeatureExtractor
from hashbench.images.image_sets import FileImages
from hashbench.run_id_sources import core_modules
from hashbench.runtime import environment
from hashbench.runtime.files import SILENT_S

PIXELS = np.random.RandomState(0).randint(0, 256, (150, 32, 32, 3), dtype=np.uint8)
CONFIG = run_config()
KEY = "0123456789abcdef" * 2
FACTS = FeatureMetadata(
    backbone="net", image_size=32, images=5, dimensions=3, device="cpu", versions={"torch": "2"}
)
ROWS = np.random.RandomState(1).randn(5, 3).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the cache, which does not exist yet."""
    monkeypatch.setenv("HASHBENCH_CACHE", str(tmp_path / "features"))
    return tmp_path / "features"


@pytest.fixture(scope="module")
def network() -> Backbone:
    torch.manual_seed(0)
    return create_backbone("test_resnet", image_size=32, pretrained=False)


def images(count: int = 150) -> ArrayImages:
    return ArrayImages(PIXELS[:count], [str(n) for n in range(count)])


def image_files(folder: Path) -> FileImages:
    """Write five images in a lossless format."""
    folder.mkdir()
    for number in range(5):
        Image.fromarray(PIXELS[number]).save(folder / f"{number}.bmp")
    return FileImages([folder / f"{n}.bmp" for n in range(5)], [f"{n}" for n in range(5)])


def compute(network: Backbone, data: Images, config: RunConfig = CONFIG) -> Tensor:
    return FeatureExtractor(network, config, 0)(data, "t")


def pieces() -> Iterator[NDArray[np.float32]]:
    yield ROWS[:2]
    yield ROWS[2:]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_another_process_finds_the_same_features(
    network: Backbone, computed: list[int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASHBENCH_CACHE", "off")
    without = compute(network, images())
    assert computed == [128, 22]
    monkeypatch.setenv("HASHBENCH_CACHE", str(folder))
    first = compute(network, images())  # other objects, as in another process
    assert computed == [128, 22] * 2
    torch.manual_seed(0)
    again = compute(network, images())
    assert computed == [128, 22] * 2
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(0).get_state())  # nothing was drawn
    for features in (first, again):
        assert features.dtype == torch.float32
        assert torch.equal(features, without)
    assert [path.suffix for path in sorted(folder.iterdir())] == [".npy", ".json"]


def test_the_time_of_features_is_known_to_all_that_use_them(
    network: Backbone, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, pooled = images(), Backbone.pooled

    def slow(self: Backbone, batch: Tensor) -> Tensor:
        time.sleep(0.05)
        return pooled(self, batch)

    monkeypatch.setattr(Backbone, "pooled", slow)
    first, second, third = (FeatureExtractor(network, CONFIG, 0) for _ in range(3))
    first(data, "t")
    second(data, "t")  # from memory
    third(images(), "t")  # from the cache on disk
    assert first.waited == first.seconds >= 0.1  # two batches
    assert second.seconds == first.seconds
    assert 0.1 <= third.seconds <= first.seconds
    assert (second.waited, third.waited) == (0, 0)
    third(data, "t")
    assert third.seconds >= 0.2


@pytest.mark.parametrize("stored", [True, False])
def test_features_that_another_process_computes_are_awaited(
    network: Backbone,
    folder: Path,
    computed: list[int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stored: bool,
) -> None:
    """It stores them, or is killed."""
    expected = compute(network, images())
    key = next(folder.glob("*.json")).stem
    folder.rename(tmp_path / "other")
    folder.mkdir()
    computed.clear()
    with other_process(folder / f".{key}.lock") as process:

        def sleep(_: float) -> None:
            if stored:
                shutil.copytree(tmp_path / "other", folder, dirs_exist_ok=True)
            process.kill()
            process.wait()

        monkeypatch.setattr(feature_cache.time, "sleep", sleep)
        torch.testing.assert_close(compute(network, images()), expected, rtol=0, atol=0)
    assert computed == ([] if stored else [128, 22])
    assert {path.suffix for path in folder.iterdir()} == {".json", ".npy"}


def test_changes_of_features_stay_in_the_process(
    network: Backbone, folder: Path, recwarn: pytest.WarningsRecorder
) -> None:
    kept = compute(network, images(5)).clone()
    for _ in range(2):  # computed, then loaded
        features = compute(network, images(5))
        features *= 2
        assert torch.equal(compute(network, images(5)), kept)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


@pytest.mark.parametrize(
    "change",
    [
        "weights",
        "pixels",
        "ids",
        "order",
        "size",
        "mean",
        "version",
        "threads",
        "processor",
        "precision",
        "code",
    ],
)
def test_the_key_covers_everything_features_depend_on(
    change: str, network: Backbone, computed: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compute(network, images(5))
    data, config, other = images(5), CONFIG, network
    if change == "weights":
        other = copy.deepcopy(network)
        with torch.no_grad():
            next(other.parameters()).add_(1e-3)
    elif change == "pixels":
        pixels = PIXELS[:5].copy()
        pixels[4, 31, 31, 2] ^= 1
        data = ArrayImages(pixels, data.ids)
    elif change == "ids":
        data = ArrayImages(PIXELS[:5], ["a", *data.ids[1:]])
    elif change == "order":
        data = data.subset(np.array([1, 0, 2, 3, 4]))
    elif change in ("size", "mean"):
        value = {"size": 40, "mean": (0.5, 0.5, 0.5)}[change]
        config = CONFIG.model_copy(update={"images": CONFIG.images.model_copy(update={change: value})})
    elif change == "version":
        versions = {**environment.library_versions(), "timm": "0.0"}
        monkeypatch.setattr(environment, "library_versions", lambda: versions)
    elif change == "precision":
        config = run_config(evaluation={"precision_encode": "bfloat16"})
    elif change == "code":
        (tmp_path / "decoding.py").write_text("")
        edited = {**core_modules(), "images/decoding.py": tmp_path / "decoding.py"}
        monkeypatch.setattr(feature_keys, "core_modules", lambda: edited)
    else:
        machine = {**environment.describe("cpu"), change: "another"}
        monkeypatch.setattr(environment, "describe", lambda _: machine)
    compute(other, data, config)
    assert computed == [5, 5]
    compute(other, data.subset(np.arange(5)), config)
    assert computed == [5, 5]


def test_the_key_of_files_depends_on_content_and_not_on_folder(
    network: Backbone, computed: list[int], tmp_path: Path
) -> None:
    first = compute(network, image_files(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # keeps the times of change
    moved = FileImages([tmp_path / "b" / f"{n}.bmp" for n in range(5)], [f"{n}" for n in range(5)])
    assert torch.equal(compute(network, moved), first)
    assert computed == [5]
    Image.fromarray(PIXELS[9]).save(tmp_path / "b" / "3.bmp")  # as many bytes
    changed = compute(network, moved.subset(np.arange(5)))
    assert computed == [5, 5]
    assert (changed != first).any(1).tolist() == [False, False, False, True, False]
    turned = FileImages(moved.paths, moved.ids, exif=True)
    assert content_key(turned) != content_key(moved)
    (tmp_path / "b" / "0.bmp").unlink()
    assert content_key(moved) is None


def test_the_key_of_a_packed_copy_covers_content_and_time(tmp_path: Path) -> None:
    file = tmp_path / "abc.bin"
    file.write_bytes(bytes(10))
    spans = np.array([[0, 5], [5, 10]])
    keys = {
        content_key(PackedImages(file, spans, ["a", "b"])),
        content_key(PackedImages(file, spans[::-1], ["a", "b"])),
        content_key(PackedImages(file, spans, ["a", "c"])),
        content_key(PackedImages(file, spans, ["a", "b"], truncated=True)),
    }
    assert content_key(PackedImages(file, spans, ["a", "b"])) in keys
    os.utime(file, ns=(0, 0))
    keys.add(content_key(PackedImages(file, spans, ["a", "b"])))
    assert len(keys - {None}) == 5


def test_equal_bytes_of_another_shape_have_another_key() -> None:
    flat = PIXELS[:5].reshape(5, 32, 96)
    ids = [str(n) for n in range(5)]
    tall = flat.reshape(5, 96, 32)
    assert len({content_key(ArrayImages(array, ids)) for array in (PIXELS[:5], flat, tall)}) == 3


def test_unknown_images_and_layers_are_not_cached_on_disk(
    network: Backbone, computed: list[int], folder: Path
) -> None:
    class Inverted(ArrayImages):
        def __getitem__(self, index: int) -> Image.Image:
            return Image.fromarray(255 - self._array[index])

    class Own(nn.Flatten):
        pass

    data = Inverted(PIXELS[:5], [str(n) for n in range(5)])
    assert compute(network, data) is compute(network, data)
    assert not torch.equal(compute(network, data), compute(network, images(5)))
    assert len(stored(folder)) == 1
    assert has_versions(network)
    assert not has_versions(Backbone(Own(), 32))
    compute(Backbone(Own(), 32), images(5))
    assert len(stored(folder)) == 1


def test_features_of_images_that_change_meanwhile_are_recomputed(
    network: Backbone,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = image_files(tmp_path / "a")
    pooled = Backbone.pooled

    def replaced(self: Backbone, batch: Tensor) -> Tensor:
        Image.fromarray(PIXELS[9]).save(data.paths[0])
        return pooled(self, batch)

    monkeypatch.setattr(Backbone, "pooled", replaced)
    features = compute(network, data)
    assert "images changed meanwhile" in capsys.readouterr().err
    assert not names(folder)
    torch.testing.assert_close(features[:1], compute(network, ArrayImages(PIXELS[9:10], ["9"])))


def test_stored_features_are_loaded_and_listed(folder: Path) -> None:
    assert load(folder, KEY) is None
    np.testing.assert_array_equal(store(folder, KEY, FACTS, pieces()), ROWS)
    loaded = load(folder, KEY)
    assert loaded is not None
    np.testing.assert_array_equal(loaded[0], ROWS)
    (one,) = stored(folder)
    assert (one.key, one.facts) == (KEY, FACTS)
    assert one.size == sum(path.stat().st_size for path in folder.iterdir())
    (file,) = folder.glob("*.npy")
    np.testing.assert_array_equal(np.load(file, allow_pickle=False), ROWS)  # other programs read it, too
    os.utime(one.files[0], (0, 0))
    load(folder, KEY)
    assert time.time() - stored(folder)[0].used.timestamp() < 60


def test_features_of_an_unexpected_shape_are_damaged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(folder, KEY, FACTS, pieces())
    index = folder / f"{KEY}.json"
    index.write_text(index.read_text().replace('"dimensions": 3', '"dimensions": 4'))
    assert load(folder, KEY) is None
    assert "features in the cache are damaged" in capsys.readouterr().err


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "harm"),
    [
        (".npy", flip),
        (".npy", lambda file: os.truncate(file, 40)),
        (".npy", lambda file: file.write_bytes(b"")),
        (".npy", Path.unlink),
        (".json", lambda file: os.truncate(file, 40)),
        (".json", lambda file: file.write_text("[]")),
        (".json", lambda file: file.write_text(file.read_text().replace(KEY, KEY[::-1]))),
    ],
)
def test_damaged_features_are_reported_and_replaced(
    suffix: str, harm: Callable[[Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(folder, KEY, FACTS, pieces())
    (file,) = folder.glob(f"*{suffix}")
    harm(file)
    assert load(folder, KEY) is None
    said = capsys.readouterr().err
    assert said.startswith("hashbench: warning: features in the cache are damaged")
    assert said.count("\n") == 1
    store(folder, KEY, FACTS, pieces())
    loaded = load(folder, KEY)
    assert loaded is not None
    np.testing.assert_array_equal(loaded[0], ROWS)
    assert len(names(folder)) == 2


def test_new_features_replace_old_ones_that_a_process_still_uses(folder: Path) -> None:
    old = store(folder, KEY, FACTS, pieces())
    new = store(folder, KEY, FACTS, iter([ROWS + 1]))
    np.testing.assert_array_equal(old, ROWS)
    np.testing.assert_array_equal(new, ROWS + 1)
    assert len(names(folder)) == 2


@pytest.mark.parametrize("other", [ROWS, ROWS + 1])
def test_concurrent_processes_continue_with_their_own_features(
    other: NDArray[np.float32], folder: Path
) -> None:
    def rows() -> Iterator[NDArray[np.float32]]:
        yield ROWS[:2]
        np.testing.assert_array_equal(store(folder, KEY, FACTS, iter([other])), other)
        np.testing.assert_array_equal(load(folder, KEY)[0], other)
        yield ROWS[2:]

    np.testing.assert_array_equal(store(folder, KEY, FACTS, rows()), ROWS)
    np.testing.assert_array_equal(load(folder, KEY)[0], ROWS)
    assert len(names(folder)) == 2


def test_failed_writes_leave_no_files(folder: Path) -> None:
    def stopped() -> Iterator[NDArray[np.float32]]:
        yield ROWS[:2]
        assert len(names(folder)) == 1  # being written
        assert not stored(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(folder, KEY, FACTS, stopped())
    assert not names(folder)
    for rows in (ROWS[:4], np.concatenate([ROWS, ROWS])):
        with pytest.raises(OSError, match="bytes of features"):
            store(folder, KEY, FACTS, iter([rows]))
    assert not names(folder)


def test_partial_files_of_killed_processes_are_removed_later(folder: Path) -> None:
    folder.mkdir()
    dead, alive = folder / f"{KEY}-00000000.part", folder / f"{KEY}-00000001.part"
    for file in (dead, alive):
        file.write_bytes(b"x")
    hours_ago = time.time() - 2 * SILENT_S
    os.utime(dead, (hours_ago, hours_ago))
    assert [one.files for one in stored(folder)] == [(dead,)]
    store(folder, KEY, FACTS, pieces())
    assert not dead.exists()
    assert alive.exists()


def no_room(_: object) -> SimpleNamespace:
    return SimpleNamespace(free=feature_cache.MIN_FREE_BYTES)


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["start", "reserve", "end", "folder"])
def test_a_disk_error_is_one_warning(
    where: str,
    network: Backbone,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HASHBENCH_CACHE", "off")
    expected = compute(network, images(5))
    monkeypatch.setenv("HASHBENCH_CACHE", str(folder))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        if where == "start":
            patch.setattr(shutil, "disk_usage", no_room)
        elif where == "reserve":
            patch.setattr(os, "posix_fallocate", full, raising=False)
        elif where == "end":
            patch.setattr(os, "fsync", full)
        else:
            folder.write_text("no folder")
        data = images(5)
        assert torch.equal(compute(network, data), expected)
        assert torch.is_grad_enabled()
        assert compute(network, data) is compute(network, data)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hashbench:")]
    assert len(said) == 1
    assert said[0].startswith(f"hashbench: warning: features cannot be cached in {folder} (")
    assert said[0].endswith("the run continues")
    assert folder.is_file() or not names(folder)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "features"
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, expected in (
        ("", tmp_path / ".cache/hashbench/features"),
        ("~/f", tmp_path / "f"),
        ("off", None),
    ):
        monkeypatch.setenv("HASHBENCH_CACHE", value)
        assert cache_folder() == expected
