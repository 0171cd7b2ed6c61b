"""K-means and anchor graphs, for fitted methods.

Shapes: N images of F features, A anchors.
"""

from __future__ import annotations

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor


def kmeans(features: Tensor, count: int, iterations: int = 25) -> Tensor:
    """Compute cluster centres by scikit-learn's k-means, with a seed that is drawn from torch.

    Args:
        features: Features [N, F].
        count: Number of centres.
        iterations: Maximum number of iterations; by default as many as faiss makes.

    Returns:
        The centres [min(count, N), F], with the dtype and on the device of the features.
    """
    seed = int(torch.randint(2**31, ()))
    clustering = KMeans(min(count, len(features)), n_init=1, max_iter=iterations, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than centres
        centres = clustering.fit(features.cpu().numpy()).cluster_centers_
    return torch.from_numpy(centres).to(features)


def anchor_weights(
    features: Tensor, anchors: Tensor, nearest: int = 3, bandwidth: float | Tensor | None = None
) -> Tensor:
    """Return the weights of the nearest anchors of each image.

    The weight of an anchor at distance d is proportional to exp(−d² / `bandwidth`). It is 0 for all but the
    nearest anchors. The weights of an image sum to 1, also where all of these exponentials underflow.

    Args:
        features: Features [N, F].
        anchors: Anchors [A, F].
        nearest: Number of nearest anchors.
        bandwidth: Divisor of the squared distances; None: `anchor_bandwidth` of these features.

    Returns:
        Weights [N, A].
    """
    if bandwidth is None:
        bandwidth = anchor_bandwidth(features, anchors, nearest)
    distances, indices = nearest_anchors(features, anchors, nearest)
    squares = distances.square()
    # The difference from the smallest one has the same softmax, and is finite where the bandwidth is tiny.
    weights = torch.softmax((squares[:, :1] - squares) / bandwidth, dim=1)
    return weights.new_zeros(len(features), len(anchors)).scatter(1, indices, weights)


def anchor_bandwidth(features: Tensor, anchors: Tensor, nearest: int = 3) -> Tensor:
    """Return the square of the mean distance of features [N, F] to their last one of the nearest anchors."""
    mean = nearest_anchors(features, anchors, nearest)[0][:, -1].mean()
    return mean.square().clamp_min(torch.finfo(torch.float32).tiny)  # copies of images have the distance 0


def nearest_anchors(features: Tensor, anchors: Tensor, nearest: int) -> tuple[Tensor, Tensor]:
    """Return the distances [N, nearest] and indices of the nearest anchors, in order of distance."""
    # Computing distances by a matrix product would round.
    distances = torch.cdist(features, anchors, compute_mode="donot_use_mm_for_euclid_dist")
    values, indices = distances.topk(min(nearest, len(anchors)), largest=False)
    return values, indices
