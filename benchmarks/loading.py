"""Compare the speed of loading augmented views with a plain torchvision `ImageFolder`.

All loaders get the same generated photographs and the same augmentation, that of the recipe of WCH, and make
two views of 224 pixels per image:

    python benchmarks/loading.py

The plain loader is what training scripts of this field commonly use: a folder of JPEG files, and a transform
that is applied twice to each image. hashbench loads the same files, and a packed copy of 256 pixels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from hashbench.config import RunConfig
from hashbench.data.class_folders import class_names, read_class_folders
from hashbench.data.dataset import Dataset
from hashbench.data.options import FileOptions
from hashbench.data.packing import pack, use_packed
from hashbench.experiment.configure import configure
from hashbench.images.image_sets import Images
from hashbench.images.transforms import ViewTransform
from hashbench.training.dataloader import EpochBatches, ViewBatches

SIZES = {"web": (500, 375), "large": (2048, 1536)}
WORKERS = (0, 1, 2)
PACK = 256
QUERIES = 2  # a dataset needs queries, although they are not loaded


def photograph(source: NDArray[np.uint8], size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """Return a random crop of a photograph, enlarged to `size` (width, height)."""
    width, height = size
    cut_width = random.uniform(300, 560)  # the original photographs have 640 × 427 pixels
    cut_height = cut_width * height / width
    left = random.uniform(0, source.shape[1] - cut_width)
    top = random.uniform(0, source.shape[0] - cut_height)
    box = (left, top, left + cut_width, top + cut_height)
    enlarged = Image.fromarray(source).resize(size, Image.Resampling.LANCZOS, box=box)
    grain = random.normal(0, 5, (height, width, 1))  # camera noise; without it, files would be too small
    return Image.fromarray((np.asarray(enlarged) + grain).clip(0, 255).astype(np.uint8))


def write_photographs(folder: Path, size: tuple[int, int], count: int) -> None:
    """Write JPEG files of quality 90 into two folders, one per class."""
    random = np.random.default_rng(0)
    sources = load_sample_images().images
    for number in range(count):
        file = folder / f"class{number % 2}" / f"{number:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        photograph(sources[number % 2], size, random).save(file, quality=90)


class TwoViews:
    """Transform that applies another transform twice."""

    def __init__(self, transform: ViewTransform) -> None:
        self.transform = transform

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """Return two views of an image."""
        return [self.transform(image), self.transform(image)]


class PlainBatches:
    """Batches of two views as published scripts make them."""

    def __init__(self, folder: Path, config: RunConfig, workers: int) -> None:
        transform = TwoViews(ViewTransform(config.images, config.views))
        self._loader: DataLoader[Any] = DataLoader(
            ImageFolder(folder, transform),
            batch_size=config.training.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def epoch(self, _epoch: int, _first: int) -> Iterator[list[Tensor]]:
        """Yield the batches of an epoch."""
        for views, _ in self._loader:
            yield views


def our_batches(images: Images, config: RunConfig, workers: int) -> ViewBatches:
    """Create batches of two views as hashbench's training does."""
    return ViewBatches(images, EpochBatches(len(images), config), 2, config, workers)


def images_per_second(loaders: Mapping[str, PlainBatches | ViewBatches], repeats: int) -> dict[str, float]:
    """Return the best speed of each loader; they alternate, so that other load affects all of them."""
    best = dict.fromkeys(loaders, 0.0)
    for epoch in range(repeats):
        for name, loader in loaders.items():
            start = time.perf_counter()
            images = sum(len(first) for first, *_ in loader.epoch(epoch, 0))
            best[name] = max(best[name], images / (time.perf_counter() - start))
    return best


def check_seconds(dataset: Dataset, root: Path, repeats: int) -> float:
    """Return the shortest time to open a packed copy, which checks all of it, from the page cache."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        use_packed(dataset, root)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Time all loaders and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--web", type=int, default=256, help="number of images of 500x375 pixels")
    parser.add_argument("--large", type=int, default=96, help="number of images of 2048x1536 pixels")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each loader; the best is reported")
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # as in worker processes, so that 0 and 1 workers are comparable
    table = []
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            folder = root / "photographs"
            write_photographs(folder, size, getattr(chosen, name))
            split = read_class_folders(
                folder, class_names([folder]), FileOptions(), lambda file: Path(file).name
            )
            query = split.subset(np.arange(QUERIES))
            dataset = Dataset.from_splits(
                "photographs", name, class_names([folder]), train=split, query=query, database=split
            )
            config = configure("wch", dataset, bits=64, seed=0, device="cpu")
            start = time.perf_counter()
            packed = pack(dataset, root, PACK)
            seconds = time.perf_counter() - start
            megabytes = sum(file.stat().st_size for file in folder.rglob("*.jpg")) / 1e6
            packed_megabytes = sum(file.stat().st_size for file in packed.iterdir()) / 1e6
            print(
                f"{name}: {len(split.images)} files of {size[0]}x{size[1]} pixels, {megabytes:.1f} MB; "
                f"packed {packed_megabytes:.1f} MB, in {seconds:.1f} s, "
                f"checked at {packed_megabytes / check_seconds(dataset, root, chosen.repeats):.0f} MB/s"
            )
            for workers in WORKERS:
                speed = images_per_second(
                    {
                        "ImageFolder": PlainBatches(folder, config, workers),
                        "files": our_batches(dataset.train, config, workers),
                        "packed": our_batches(use_packed(dataset, root).train, config, workers),
                    },
                    chosen.repeats,
                )
                plain, files, small = speed.values()
                table.append([name, workers, plain, files, small, files / plain, small / plain])
    headers = ["images", "workers", "ImageFolder", "files", "packed", "files gain", "packed gain"]
    print(tabulate(table, headers, tablefmt="github", floatfmt=("", "", ".1f", ".1f", ".1f", ".2f", ".2f")))


if __name__ == "__main__":
    main()
