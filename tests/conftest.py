"""Fixtures and helpers for all tests.

The process that only hands out the tests to workers imports this file, too, so that torch is imported in
fixtures.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from hashbench import plugin_files, registry
from hashbench.cli.app import main

if TYPE_CHECKING:
    from torch import Tensor

    from hashbench import Backbone

os.environ["HASHBENCH_CACHE"] = "off"  # tests must not write into the home folder
# Tests run in parallel, so more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a GPU, Triton's interpreter runs the kernels; Triton reads this when it is imported.
os.environ.setdefault("TRITON_INTERPRET", "0" if shutil.which("nvidia-smi") else "1")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --long, with which the tests in `fuzz/` take hours."""
    parser.addoption("--long", action="store_true", help="try many more damaged inputs and moments to stop")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Let torch use a single thread, whatever OMP_NUM_THREADS was."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def tries(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Return a function that chooses between a short and a long number of tries (`--long`)."""

    def choose(short: int, long: int) -> int:
        return long if request.config.getoption("--long") else short

    return choose


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Return a function that reads values of published code by the name of their file."""
    import numpy as np
    import torch

    def read(name: str) -> dict[str, Tensor]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
            return {key: torch.from_numpy(file[key]) for key in file.files}

    return read


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives the size of every batch that passes through a network."""
    from hashbench import Backbone

    sizes: list[int] = []
    pooled = Backbone.pooled

    def counted(self: Backbone, batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return pooled(self, batch)

    monkeypatch.setattr(Backbone, "pooled", counted)
    return sizes


def forget_plugins() -> None:
    """Forget the plugin files and source code that were loaded, as in a new process."""
    for name in [name for name in sys.modules if name.startswith(plugin_files.PREFIX)]:
        del sys.modules[name]
    for cached in (plugin_files.read_source, plugin_files._modules_in, registry._plugin_digest):
        cached.cache_clear()


class Result(NamedTuple):
    """The exit code of a command and its output on standard output and standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Return a function that runs the command-line program in a temporary folder, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry.PLUGIN_FILES, "paths", [])
    monkeypatch.delenv("HASHBENCH_DATA", raising=False)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["hashbench", *map(str, arguments)])
        forget_plugins()
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        return Result(int(exit_.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def small_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the dataset of digits be small: 200 queries, and 100 images to train on and to search.

    Of a run at few pixels, most of the time goes into the views of all 1,597 images.
    """
    from helpers.trees import TREES

    TREES["digits"](tmp_path, monkeypatch)


@pytest.fixture
def nuswide_tree(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small NUS-WIDE in its original layout and returns the data root.

    Image i has the color of its first class, i % 21, so a method can learn something. The training images are
    the first ones of the database.
    """
    import numpy as np
    from PIL import Image

    def write(
        *,
        query: int = 21,
        train: int = 42,
        database: int = 84,
        folder: str = "nuswide",
        stored: str = "images",
        listed: str = "images",
    ) -> Path:
        """Write the tree.

        Args:
            query: Number of queries.
            train: Number of training images, at most `database`.
            database: Number of database images.
            folder: Folder of the lists, below the root.
            stored: Folder of the images, below that of the lists.
            listed: Folder of the images as the lists have it.
        """
        root = tmp_path / "data"
        images = root / folder / stored
        images.mkdir(parents=True)
        random = np.random.RandomState(0)
        colours = random.randint(0, 256, (21, 3))
        lines = []
        for index in range(query + database):
            first, second = index % 21, (index * index) % 21
            name = f"{index:04d}_{1544502940 + index}.jpg"
            pixels = colours[first] + random.randint(-20, 21, (32, 40, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(images / name)
            labels = ("1" if column in (first, second) else "0" for column in range(21))
            lines.append(f"{listed}/{name} {' '.join(labels)}\n")
        for name, part in (
            ("test", lines[:query]),
            ("train", lines[query : query + train]),
            ("database", lines[query:]),
        ):
            (root / folder / f"{name}.txt").write_text("".join(part), encoding="utf-8")
        return root

    return write
