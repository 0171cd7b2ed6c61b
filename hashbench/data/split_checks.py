"""Checks of the ids and labels of one part of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.errors import HashbenchError, quoted


def checked_labels(
    part: str, ids: Sequence[str], labels: NDArray[Any], num_classes: int
) -> NDArray[np.int64] | NDArray[np.uint8]:
    """Check the ids and labels of a part, and return the labels as uint8 [n, C] or int64 [n].

    Args:
        part: Name of the dataset and of the part, for errors.
        ids: One id per image.
        labels: Multi-hot [n, C] or class ids [n].
        num_classes: C.

    Raises:
        HashbenchError: There are no images, an id is not usable, or the labels do not fit.
    """
    labels = np.asarray(labels)
    if not ids:
        raise HashbenchError(f"{part} has no images")
    if not num_classes and labels.shape[1:] != (0,):
        raise HashbenchError(f"{part} has no classes; images without labels need labels of shape [n, 0]")
    _check_ids(part, ids)
    if len(labels) != len(ids):
        raise HashbenchError(f"{part} has {len(ids):,} images, but {len(labels):,} rows of labels")
    if labels.ndim == 1:
        if not np.issubdtype(labels.dtype, np.integer):
            raise HashbenchError(f"{part}: expected integers as class ids, got {labels.dtype}")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise HashbenchError(
                f"{part}: expected class ids from 0 to {num_classes - 1}, "
                f"got {labels.min()} to {labels.max()}"
            )
        return labels.astype(np.int64)
    if labels.ndim != 2 or labels.shape[1] != num_classes:
        raise HashbenchError(
            f"{part}: expected labels of shape [n] or [n, {num_classes}], got {list(labels.shape)}"
        )
    wrong = labels[(labels != 0) & (labels != 1)]
    if wrong.size:
        raise HashbenchError(f"{part}: expected 0 or 1 in multi-hot labels, got {wrong[0]}")
    return labels.astype(np.uint8)


def _check_ids(part: str, ids: Sequence[str]) -> None:
    if absolute := next((image_id for image_id in ids if image_id.startswith(("/", "\\"))), None):
        raise HashbenchError(
            f"{part} has the id {absolute!r}, an absolute path; make it relative, since an id must be the "
            "same on every machine"
        )
    try:
        "".join(ids).encode()
    except UnicodeEncodeError as error:
        invalid = next(image_id for image_id in ids if error.object[error.start] in image_id)
        raise HashbenchError(
            f"{part} has the id {quoted(invalid)}, which is not valid UTF-8; rename it"
        ) from None
    if len(set(ids)) != len(ids):
        image_id, count = Counter(ids).most_common(1)[0]
        raise HashbenchError(f"{part} has the id {image_id!r} {count} times; ids must be unique")


def unlabelled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask [n] of the images without any label; an image with a class id always has one."""
    if labels.ndim == 1:
        return np.zeros(len(labels), np.bool_)
    return np.asarray(labels.sum(axis=1) == 0)


def common_class(query: NDArray[Any], database: NDArray[Any]) -> int | None:
    """Return a class that all queries and all database images have, or None if there is no such class."""
    if query.ndim == 1:
        first = int(query[0])
        return first if (query == first).all() and (database == first).all() else None
    common = np.flatnonzero(query.all(axis=0) & database.all(axis=0))
    return int(common[0]) if len(common) else None
