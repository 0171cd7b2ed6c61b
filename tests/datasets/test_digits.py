"""The digits of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from hashbench import load_dataset


def test_digits(tmp_path: Path) -> None:
    dataset = load_dataset("digits", "default", tmp_path / "none")
    assert (len(dataset.query.images), len(dataset.train), len(dataset.database.images)) == (200, 1597, 1597)
    assert np.bincount(dataset.query.labels).tolist() == [20] * 10
    assert dataset.train.ids == dataset.database.images.ids
    assert not set(dataset.train.ids) & set(dataset.query.images.ids)
    assert dataset.warnings == ()
    assert dataset.fingerprint == "891fc5afd2272543a446f3c5000e567c9c7aa5899c59445520305b349992437c"
    assert not list(tmp_path.iterdir())

    source = load_digits()
    for part in (dataset.query, dataset.database):
        index = int(part.images.ids[7].removeprefix("digits/"))
        assert part.labels[7] == source.target[index]
        image = np.asarray(part.images[7])
        assert image.shape == (8, 8, 3)
        np.testing.assert_array_equal(image[..., 1], np.round(source.images[index] * 255 / 16))
