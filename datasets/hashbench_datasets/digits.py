"""Digits: 1,797 handwritten digits of 8×8 pixels, which are part of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from hashbench.data.dataset import About, Dataset, DatasetPlugin, Split
from hashbench.data.protocol import Protocol, draw_per_class
from hashbench.images.image_sets import ArrayImages

QUERIES_PER_CLASS = 20


class Digits(DatasetPlugin):
    """The images of `sklearn.datasets.load_digits`, which have no published protocol."""

    protocols: ClassVar[Mapping[str, Protocol]] = {
        "default": Protocol(
            "20 queries per class, drawn by the seed; the others are both training images and database",
            200,
            1_597,
            1_597,
        )
    }
    about: ClassVar[About] = About(
        licence="CC BY 4.0 (UCI), in scikit-learn (BSD-3-Clause)",
        source="https://archive.ics.uci.edu/dataset/80, inside scikit-learn",
        size="58 kB",
        layout=("nothing: the images are part of scikit-learn",),
        notes=("There is no common split in hashing papers; use it for quick and offline runs.",),
    )

    needs_root: ClassVar[bool] = False

    def load(self, root: Path, protocol: str) -> Dataset:
        """Load the dataset from scikit-learn; see `DatasetPlugin.load`."""
        from sklearn.datasets import load_digits  # imported here, since it is slow

        digits = load_digits()
        images = ArrayImages(
            np.rint(digits.images * 255 / 16).astype(np.uint8),  # the values range from 0 to 16
            [f"digits/{index:04d}" for index in range(len(digits.images))],
        )
        query, rest = map(
            Split(images, digits.target).subset,
            draw_per_class(digits.target, [QUERIES_PER_CLASS], self.options.seed),
        )
        return Dataset.from_splits(
            "digits",
            protocol,
            tuple("0123456789"),
            train=rest,
            query=query,
            database=rest,
            options=self.options,
        )
