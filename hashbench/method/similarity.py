"""Cosine distances of training images and their distribution, for methods that classify pairs by distance.

SSDH and CIMON fit half a Gaussian to each side of the mode of the distances, and compare the similarities of
codes with targets that they derive from it. Shapes: N training images, B rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hashbench.errors import UsageError

BINS, WIDTH = 100, 0.01  # of the histogram of distances
MAX_DISTANCES = 2**24  # maximum number of distances in memory: float32, 64 MiB
MAX_IMAGES = 20_000  # for matrices of all pairs: each has 1.6 GB in float32


class HalfGaussians(NamedTuple):
    """The mode of distances, and the standard deviations of the distances on each side around it."""

    mode: float
    std_left: float
    std_right: float


class CosineDistances:
    """Cosine distances of all pairs of rows, in parts of bounded memory; it can be iterated repeatedly.

    Args:
        units: Features of unit length [N, F].
        square: Yield the whole matrix of distances, with every pair twice and the zeros of the diagonal;
            False: every pair once.
    """

    def __init__(self, units: Tensor, square: bool) -> None:
        self.units, self.square = units, square

    def __iter__(self) -> Iterator[Tensor]:
        """Yield vectors of distances."""
        rows = max(1, MAX_DISTANCES // len(self.units))
        for start in range(0, len(self.units), rows):
            part = cosine_distances(self.units, start, start + rows)
            if self.square:
                yield part.flatten()
            else:
                yield part[torch.ones_like(part, dtype=torch.bool).triu(start + 1)]


def cosine_distances(units: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
    """Return the cosine distances of the rows from start to stop to all rows; each is at 0 from itself.

    Args:
        units: Features of unit length [N, F].
        start: First row.
        stop: Row after the last one; None: N.

    Returns:
        Distances [stop − start, N] from 0 to 2.
    """
    distances = (1 - units[start:stop] @ units.T).clamp_(min=0)  # rounding could make them negative
    distances.diagonal(start).fill_(0)
    return distances


def distance_histogram(distances: Tensor, first_edge: float) -> Tensor:
    """Count distances in 100 bins of width 0.01; those on an edge or outside are in no bin.

    Args:
        distances: Distances of any shape.
        first_edge: Left edge of the first bin.

    Returns:
        Counts, int64 [100].
    """
    position = (distances.flatten().double() - first_edge) / WIDTH
    bins = position.floor()
    inside = (bins >= 0) & (bins < BINS) & (bins != position)
    return torch.bincount(bins[inside].long(), minlength=BINS)


def fit_half_gaussians(parts: Iterable[Tensor], first_edge: float) -> HalfGaussians:
    """Fit half a Gaussian to the distances up to their mode, and another to those beyond it.

    The mode is the left edge of the fullest bin. A half Gaussian is the maximum-likelihood fit to the
    distances of its side and their reflections at the mode; without any distances it has width 0.

    Args:
        parts: Vectors of distances, which are iterated twice.
        first_edge: Left edge of the first bin of the histogram.
    """
    histogram = torch.stack([distance_histogram(part, first_edge) for part in parts]).sum(0)
    mode = WIDTH * int(histogram.argmax())
    squares, counts = [0.0, 0.0], [0, 0]
    for part in parts:
        deviations = part.double() - mode
        for side, selected in enumerate((deviations <= 0, deviations > 0)):
            squares[side] += float(deviations[selected].square().sum())
            counts[side] += int(selected.sum())
    left, right = ((total / max(1, count)) ** 0.5 for total, count in zip(squares, counts, strict=True))
    return HalfGaussians(mode, left, right)


def semantic_loss(hash: Tensor, similarity: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted squared difference between the similarities of codes and their targets.

    Args:
        hash: Relaxed codes [B, bits] in −1..1.
        similarity: Targets [B, B] of the inner products of the codes, divided by the bits.
        weights: Weights [B, B].

    Returns:
        A scalar, the sum over all pairs divided by B², whatever the weights are.
    """
    products = hash @ hash.T / hash.shape[1]
    return (weights * (products - similarity).square()).mean()


def check_pairs_fit(method: str, images: int) -> None:
    """Check that a matrix of all pairs of training images is not too large.

    Raises:
        UsageError: There are more than `MAX_IMAGES` images.
    """
    if images > MAX_IMAGES:
        raise UsageError(
            f"{method}: expected at most {MAX_IMAGES:,} training images, since memory grows with their "
            f"square, got {images:,}; choose a --protocol with fewer, or draw some by --set "
            f"max_images={MAX_IMAGES}"
        )
