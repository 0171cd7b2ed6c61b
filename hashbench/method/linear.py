"""Linear projections of features, for methods that are fitted: LSH, PCAH, ITQ, SH and their like."""

from __future__ import annotations

import torch
from pydantic import BaseModel
from sklearn.decomposition import PCA
from torch import Tensor

from hashbench.backbones import Backbone
from hashbench.errors import UsageError
from hashbench.method.base import ShallowMethod


class LinearMethod(ShallowMethod):
    """Projects features after subtracting a mean; a subclass gives `fit`, which finds both.

    Attributes:
        mean: Subtracted from features [F].
        projection: A column for each bit [F, bits].
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: BaseModel) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.register_buffer("mean", torch.zeros(backbone.feature_dim))
        self.register_buffer("projection", torch.zeros(backbone.feature_dim, bits))

    def encode_features(self, features: Tensor) -> Tensor:
        """Projections [B, bits] of features [B, F]."""
        return (features - self.mean) @ self.projection


def principal_components(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and first principal components of features, computed in double precision.

    Args:
        features: Features [N, F].
        count: How many components.

    Returns:
        The mean [F] and the components as columns [F, count], in order of falling variance; of the type and
        on the device of the features.

    Raises:
        UsageError: There are not so many.
    """
    most = min(len(features) - 1, features.shape[1])
    if count > most:
        raise UsageError(
            f"{len(features)} images of {features.shape[1]} features have {most} principal components, "
            f"not {count}; choose fewer --bits or another --set backbone=…"
        )
    pca = PCA(count, svd_solver="covariance_eigh").fit(features.double().cpu().numpy())
    mean, components = torch.from_numpy(pca.mean_), torch.from_numpy(pca.components_.T.copy())
    return mean.to(features), components.to(features)
