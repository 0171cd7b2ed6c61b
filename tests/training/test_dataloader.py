"""Tests of training batches: each image occurs once per epoch, and views do not depend on workers."""

import ctypes
import errno
import itertools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import run_config
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from hashbench import ArrayImages, UsageError, distributed
from hashbench.config import RunConfig
from hashbench.encoding import features
from hashbench.images import batch_loader
from hashbench.images.batch_loader import BatchLoader
from hashbench.images.transforms import test_transform as transform_of
from hashbench.training.dataloader import Batch, EpochBatches, FeatureBatches, ViewBatches

COUNT, SIZE = 11, 12
IMAGES = ArrayImages(
    np.random.RandomState(0).randint(0, 256, (COUNT, 16, 20, 3), dtype=np.uint8),
    [f"i{n}" for n in range(COUNT)],
)
AUGMENTED = {"crop_scale": (0.5, 1.0), "horizontal_flip": 0.5}


def config(batch_size: int = 4, *, drop_last: bool = False, **settings: Any) -> RunConfig:
    training = {"batch_size": batch_size, "drop_last": drop_last}
    return run_config(**{"images": {"size": SIZE}, "views": AUGMENTED, "training": training, **settings})


def loaded(run: RunConfig, workers: int = 0, views: int = 2) -> ViewBatches:
    return ViewBatches(IMAGES, EpochBatches(COUNT, run), views, run, workers)


def inputs(batches: Iterable[Batch]) -> list[tuple[Tensor, ...]]:
    return [batch.inputs for batch in batches]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for batch, again in zip(one, other, strict=True):
        assert torch.equal(batch.indices, again.indices)
        assert all(torch.equal(a, b) for a, b in zip(batch.inputs, again.inputs, strict=True))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_epoch_is_split_into_batches(drop_last: bool, count: int) -> None:
    """Use each image once; keep a last batch that has two images, and one for each process."""
    for size, batch_size in itertools.product(range(2, 13), range(max(2, count), 7)):
        lengths = [batch_size] * (size // batch_size)
        if size % batch_size >= max(2, count) and not drop_last:
            lengths.append(size % batch_size)
        run = config(batch_size, drop_last=drop_last, processes=count)
        if not lengths:
            with pytest.raises(
                UsageError, match=f"^{size} training images do not fill a batch of {batch_size}; "
            ):
                EpochBatches(size, run)
            continue
        order = EpochBatches(size, run)
        assert (order.batches, order.images) == (len(lengths), sum(lengths))
        batches = order.epoch(3)
        assert [len(batch) for batch in batches] == lengths
        indices = np.concatenate(batches).tolist()
        assert len(set(indices)) == len(indices)
        assert set(indices) <= set(range(size))


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_of_a_number_of_images(drop_last: bool) -> None:
    """Draw a part of a large dataset for each epoch, and pass over a small one several times."""
    for size, wanted, passes, lengths in (
        (100, 10, 1, [4, 4, 2]),  # images, images of an epoch, passes, images per batch of a pass
        (10, 10, 1, [4, 4, 2]),
        (10, 14, 1, [4, 4, 2]),
        (10, 31, 3, [4, 4, 2]),
        (9, 27, 3, [4, 4]),  # a batch of one image is dropped
        (4, 1000, 250, [4]),
        (2, 1000, 250, [2]),  # as many steps as with full batches
        (5, 1000, 200, [4]),
    ):
        lengths = [length for length in lengths if length == 4 or not drop_last]
        if not lengths:
            continue
        training = {"batch_size": 4, "drop_last": drop_last, "epoch_images": wanted}
        order = EpochBatches(size, config(training=training))
        batches = order.epoch(1)
        assert [len(batch) for batch in batches] == lengths * passes
        assert (order.passes, order.batches, order.images) == (passes, len(batches), sum(lengths) * passes)
        for start in range(0, len(batches), len(lengths)):
            indices = np.concatenate(batches[start : start + len(lengths)]).tolist()
            assert len(set(indices)) == len(indices)
            assert set(indices) <= set(range(size))
    with pytest.raises(
        UsageError, match=r"^100 training images in an epoch, of which epoch_images=3 are drawn"
    ):
        EpochBatches(100, config(training={"batch_size": 4, "epoch_images": 3, "drop_last": True}))
    drawn = [
        np.concatenate(EpochBatches(100, config(training={"epoch_images": 32})).epoch(e)) for e in (0, 1)
    ]
    assert len({*drawn[0].tolist(), *drawn[1].tolist()}) > 40


def test_the_passes_of_an_epoch_have_different_views() -> None:
    run = config(training={"batch_size": 4, "epoch_images": 3 * COUNT})
    batches = list(loaded(run).epoch(1, 0))
    assert_same(list(loaded(run).epoch(1, 4)), batches[4:])
    views = {index: list[Tensor]() for index in range(COUNT)}
    for batch in batches:
        for index, view in zip(batch.indices.tolist(), batch.inputs[0], strict=True):
            views[index].append(view)
    for index, seen in views.items():
        assert len(seen) == 3
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen, 2)), index
    following = config(training={"batch_size": 4, "epoch_images": COUNT})
    first = {
        i: v
        for b in loaded(following).epoch(3, 0)
        for i, v in zip(b.indices.tolist(), b.inputs[0], strict=True)
    }
    assert all(
        torch.equal(first[index], seen[0]) for index, seen in views.items()
    )  # its first pass is pass 3


def test_the_order_depends_on_seed_and_epoch() -> None:
    order, other = EpochBatches(100, config(10)), EpochBatches(100, config(10, seed=1))
    epochs = [np.concatenate(order.epoch(epoch)) for epoch in range(3)]
    epochs.append(np.concatenate(other.epoch(0)))
    for one, another in itertools.combinations(epochs, 2):
        assert sorted(one) == sorted(another) == list(range(100))
        assert (one == another).sum() < 10  # about one by chance
    assert np.array_equal(epochs[1], np.concatenate(EpochBatches(100, config(10)).epoch(1)))


def test_the_image_that_is_dropped_differs_between_epochs() -> None:
    order = EpochBatches(COUNT, config(5))
    assert order.images == 10
    left_out = [set(range(COUNT)) - set(np.concatenate(order.epoch(epoch)).tolist()) for epoch in range(8)]
    assert all(len(indices) == 1 for indices in left_out)
    assert len(set.union(*left_out)) > 1


def test_a_batch_has_an_image_for_each_process() -> None:
    with pytest.raises(
        UsageError,
        match=r"^a batch of 2 images is too small for 3 processes; use a larger --set batch_size",
    ):
        EpochBatches(12, config(2, processes=3))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_the_first_one(workers: int) -> None:
    everything = list(loaded(config()).epoch(1, 0))
    assert [tuple(view.shape for view in batch.inputs) for batch in everything] == [
        ((length, 3, SIZE, SIZE),) * 2 for length in (4, 4, 3)
    ]
    batches = loaded(config(), workers)
    state = torch.get_rng_state()
    assert_same(list(batches.epoch(1, 0)), everything)
    assert_same(list(batches.epoch(1, 1)), everything[1:])
    assert_same(list(batches.epoch(1, 2)), everything[2:])
    assert list(batches.epoch(1, 3)) == []
    assert_same(list(batches.epoch(1, 0)), everything)
    assert torch.equal(torch.get_rng_state(), state)  # dropout draws from it


def test_views_depend_only_on_seed_epoch_and_image() -> None:
    def by_image(run: RunConfig, epoch: int) -> dict[int, tuple[Tensor, ...]]:
        indices = np.concatenate(EpochBatches(COUNT, run).epoch(epoch)).tolist()
        rows = [torch.cat(view) for view in zip(*inputs(loaded(run).epoch(epoch, 0)), strict=True)]
        return {index: tuple(view[row] for view in rows) for row, index in enumerate(indices)}

    views = by_image(config(4), 0)
    assert len(views) == COUNT
    small = by_image(config(3), 0)
    assert len(small) == COUNT
    assert all(torch.equal(a, b) for index in views for a, b in zip(views[index], small[index], strict=True))
    different = [views, by_image(config(4), 1), by_image(config(4, seed=1), 0)]
    for index in views:
        drawn = torch.stack([view for one in different for view in one[index]])
        assert len(drawn.flatten(1).unique(dim=0)) == 6


def test_processes_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    run = config(views={})
    everything = [batch for (batch,) in inputs(loaded(run, views=1).epoch(0, 1))]
    shares = []
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append([batch for (batch,) in inputs(loaded(run, views=1).epoch(0, 1))])
    for whole, parts in zip(everything, zip(*shares, strict=True), strict=True):
        assert torch.equal(torch.cat(parts), whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_cropped_images_are_those_of_the_test_transform() -> None:
    run = config(
        views={**AUGMENTED, "on_device": True}, images={"size": SIZE, "mean": (0, 0, 0), "std": (1, 1, 1)}
    )
    batches = inputs(loaded(run).epoch(0, 1))
    expected = [
        torch.stack([transform_of(run.images)(IMAGES[i]) for i in b])
        for b in EpochBatches(COUNT, run).epoch(0)
    ]
    for (squares,), shown in zip(batches, expected[1:], strict=True):
        assert squares.dtype == torch.uint8
        torch.testing.assert_close(squares / 255, shown)


def test_features_have_the_same_order() -> None:
    kept = torch.arange(COUNT)[:, None] * torch.ones(1, 3)
    order = EpochBatches(COUNT, config())
    batches = FeatureBatches(kept, order, 2).epoch(5, 1)
    for ((one, other), rows), indices in zip(batches, order.epoch(5)[1:], strict=True):
        assert one[:, 0].tolist() == rows.tolist() == indices.tolist()
        assert torch.equal(one, other)


class Unshared(ArrayImages):
    """Images of which worker processes cannot pass on two, 5 and 9."""

    error = "unable to allocate shared memory(shm) for file </torch_7_8_9>: No space left on device (28)\n"

    def __getitem__(self, index: int) -> Image.Image:
        if get_worker_info() is not None and index in (5, 9):
            raise RuntimeError(self.error)
        return super().__getitem__(index)


@pytest.fixture
def unwarned() -> None:
    """Reset the warning that is shown once per process."""
    batch_loader._warn.cache_clear()


@pytest.mark.usefixtures("unwarned")
@pytest.mark.parametrize(
    "error",
    [
        Unshared.error,  # torch's messages
        "unable to write to file </torch_7_8_9>: No space left on device (28)",
    ],
)
def test_without_shared_memory_the_main_process_loads(
    error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Unshared, "error", error)
    run = config()
    images = Unshared(IMAGES._array, IMAGES.ids)
    batches = ViewBatches(images, EpochBatches(COUNT, run), 2, run, workers=2)
    for epoch, first in ((0, 0), (1, 1), (2, 0)):
        assert_same(list(batches.epoch(epoch, first)), list(loaded(run).epoch(epoch, first)))
    values = torch.cat(list(features.batches(images, run, workers=2, task="x")))
    assert torch.equal(values, torch.cat(list(features.batches(IMAGES, run, workers=0, task="x"))))
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [
        "hashbench: warning: worker processes cannot pass images on in /dev/shm (No space left on device "
        "(28)); images are loaded without them, which is slower; increase the size of /dev/shm (docker run "
        "--shm-size=8g), or lower --workers"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_server_of_processes_imports_modules_once_for_all_workers(tmp_path: Path) -> None:
    """Start workers as Python 3.14 does on Linux: each one would otherwise import torch, for seconds."""
    (tmp_path / "squares.py").write_text(
        "import os\n"
        "from pathlib import Path\n"
        "with (Path(__file__).parent / 'imports.txt').open('a') as file:\n"
        "    file.write(f'{os.getpid()}\\n')\n"
        "class Squares:\n"
        "    def __getitem__(self, index):\n"
        "        return index**2\n"
    )
    (tmp_path / "main.py").write_text(
        "import multiprocessing\n"
        "from helpers.configs import run_config\n"
        "from hashbench.images.batch_loader import BatchLoader\n"
        "from squares import Squares\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('forkserver')\n"
        "    for _ in range(2):\n"
        "        loader = BatchLoader(Squares(), run_config(), 2, persistent=False)\n"
        "        print([batch.tolist() for batch in loader.load([[1, 2], [3], [4, 5]])])\n"
    )
    paths = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[1]), *sys.path))
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == 2 * "[[1, 4], [9], [16, 25]]\n"
    assert len((tmp_path / "imports.txt").read_text().splitlines()) == 2  # this process and the server


class Broken(Dataset[Any]):
    """A dataset that raises an error of its own."""

    def __getitem__(self, index: int) -> Any:
        raise RuntimeError("a plugin's own")


def test_other_errors_are_not_caught() -> None:
    with pytest.raises(RuntimeError, match="^a plugin's own$"):
        list(BatchLoader(Broken(), config(), 0, persistent=False).load([[0]]))


@pytest.mark.usefixtures("unwarned")
def test_a_full_shared_memory_has_no_room_for_a_lock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(multiprocessing, "Lock", full)
    assert_same(list(loaded(config(), workers=2).epoch(0, 0)), list(loaded(config()).epoch(0, 0)))
    assert "in /dev/shm (No space left on device); images are loaded" in capsys.readouterr().err


def mount_small_shared_memory() -> bool:
    """Mount a small /dev/shm for this process, which must have one thread; return True on success."""
    libc = ctypes.CDLL(None)
    return not (
        libc.unshare(0x20000)  # CLONE_NEWNS
        or libc.mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
        or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=64k")
    )


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts /dev/shm")
@pytest.mark.usefixtures("unwarned")
def test_a_small_shared_memory() -> None:
    """Load batches that do not fit into /dev/shm, as in a container, where it has 64 MB."""
    images = ArrayImages(np.tile(IMAGES._array, (4, 1, 1, 1)), [str(n) for n in range(4 * COUNT)])
    run, order = config(22), EpochBatches(4 * COUNT, config(22))

    def seen(workers: int) -> list[Tensor]:
        batches = ViewBatches(images, order, 2, run, workers)
        views = [view for epoch in (0, 1) for batch in batches.epoch(epoch, 0) for view in batch.inputs]
        return [*views, *features.batches(images, run, workers=workers, task="x")]

    def check() -> None:
        if not mount_small_shared_memory():
            os._exit(77)
        assert all(map(torch.equal, seen(0), seen(2)))
        assert batch_loader._warn.cache_info().currsize == 1

    process = multiprocessing.get_context("fork").Process(target=check)
    process.start()
    process.join()
    if process.exitcode == 77:
        pytest.skip("may not mount")
    assert process.exitcode == 0
