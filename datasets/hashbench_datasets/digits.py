"""Handwritten digits of 8×8 pixels that come with scikit-learn: small, real, and there without a download."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from hashbench.dataset import ArrayImages, Dataset, DatasetPlugin, Split
from hashbench.protocol import draw_per_class

QUERIES_PER_CLASS = 20


class Digits(DatasetPlugin):
    """The 1,797 images of `sklearn.datasets.load_digits`; they have no published protocol."""

    protocols: ClassVar[Mapping[str, str]] = {
        "default": "200 queries, 20 a class by a fixed seed; the other 1,597 are both training and database"
    }

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the dataset out of scikit-learn; see `DatasetPlugin.load`."""
        from sklearn.datasets import load_digits  # slow to import

        digits = load_digits()
        images = ArrayImages(
            np.rint(digits.images * 255 / 16).astype(np.uint8),  # grey levels are 0 to 16
            [f"digits/{index:04d}" for index in range(len(digits.images))],
        )
        query, rest = (
            Split(images.subset(drawn), digits.target[drawn])
            for drawn in draw_per_class(digits.target, [QUERIES_PER_CLASS], seed=0)
        )
        return Dataset.from_splits(
            "digits", protocol, tuple("0123456789"), train=rest, query=query, database=rest
        )
