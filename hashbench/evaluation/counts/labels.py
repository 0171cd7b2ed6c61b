"""Labels in the form that the counting kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashbench.codes import as_array, pack_bits
from hashbench.errors import UsageError


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of n items; two items are relevant to each other if they share at least one label.

    Attributes:
        packed: uint64 [n, words]. Multi-hot labels take one bit per label, class ids a whole word.
        columns: Number of labels of a multi-hot matrix; None for class ids.
    """

    packed: NDArray[np.uint64]
    columns: int | None

    @classmethod
    def from_array(cls, labels: ArrayLike, name: str = "labels") -> Labels:
        """Create labels from a multi-hot matrix or from class ids.

        Args:
            labels: Array, tensor or sparse matrix: [n, classes] of 0 and 1 (multi-hot), or [n] or [n, 1] of
                class ids >= 0.
            name: Name of `labels` in error messages.

        Raises:
            UsageError: The shape or a value is invalid, or a class id is negative, not a whole number, or too
                large to be exact in the type of the array.
        """
        array = as_array(labels, name)
        if array.dtype.kind not in "biuf":
            raise UsageError(f"{name}: expected numbers, got {array.dtype}")
        if array.ndim == 1 or array.shape[1:] == (1,):
            kind = str(getattr(labels, "dtype", array.dtype))
            return cls(_ids(array.reshape(-1, 1), kind, name), None)
        if array.ndim == 2 and array.shape[1] > 1:
            return cls(pack_bits(_multi_hot(array, name)), array.shape[1])
        raise UsageError(
            f"{name}: expected class ids [n] or a multi-hot matrix [n, classes], got {list(array.shape)}"
        )

    @property
    def by_class(self) -> bool:
        """True for class ids, False for multi-hot labels."""
        return self.columns is None

    def __str__(self) -> str:
        return "class ids [n]" if self.by_class else f"a multi-hot matrix [n, {self.columns}]"

    def __len__(self) -> int:
        return len(self.packed)


def _ids(array: NDArray[Any], kind: str, name: str) -> NDArray[np.uint64]:
    """Return class ids as unsigned integers."""
    if array.dtype.kind == "f" and not (whole := array == np.floor(array)).all():
        raise UsageError(f"{name}: class ids must be whole numbers, got {array[~whole][0]}")
    if array.dtype.kind != "b" and (array < 0).any():
        raise UsageError(f"{name}: class ids must be 0 or more, got {array.min()}; remove unlabelled items")
    if array.dtype.kind == "f":
        digits = 8 if "bfloat16" in kind else min(np.finfo(array.dtype).nmant + 1, 64)
        if (array >= 2.0**digits).any():
            raise UsageError(
                f"{name}: class ids of {kind} are exact below 2**{digits} only, got {array.max():.0f}; "
                "pass them as an array of integers (numpy.uint64 holds ids up to 2**64 - 1)"
            )
    return array.astype(np.uint64)


def _multi_hot(array: NDArray[Any], name: str) -> NDArray[np.bool_]:
    ones: NDArray[np.bool_] = array == 1
    if not (valid := ones | (array == 0)).all():
        raise UsageError(
            f"{name}: a multi-hot matrix contains 0 and 1, got {array[~valid][0]}; set 1 for each label"
        )
    return ones
