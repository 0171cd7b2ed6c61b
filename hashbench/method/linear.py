"""Linear projections of features, for fitted methods such as LSH, PCAH, ITQ and SH."""

from __future__ import annotations

import torch
from pydantic import BaseModel
from sklearn.decomposition import PCA
from torch import Tensor

from hashbench.backbones import Backbone
from hashbench.errors import UsageError
from hashbench.method.base import ShallowMethod


class LinearMethod(ShallowMethod):
    """Base class of methods that project centred features; a subclass implements `fit`.

    Attributes:
        mean: Mean that is subtracted from features [F].
        projection: One column per bit [F, bits].
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: BaseModel) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.register_buffer("mean", torch.zeros(backbone.feature_dim))
        self.register_buffer("projection", torch.zeros(backbone.feature_dim, bits))

    def encode_features(self, features: Tensor) -> Tensor:
        """Project features [B, F] to [B, bits]."""
        return (features - self.mean) @ self.projection


class PrincipalMethod(LinearMethod):
    """Base class of methods with one bit per principal component, of which features have F at most."""

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: BaseModel) -> None:
        super().__init__(backbone, bits, hyperparameters)
        if bits > backbone.feature_dim:
            raise UsageError(
                f"expected at most {backbone.feature_dim} bits, the dimension of the features, got {bits}; "
                "choose fewer --bits or another --backbone"
            )


def principal_components(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Compute the mean and the first principal components of features in double precision.

    Args:
        features: Features [N, F].
        count: Number of components.

    Returns:
        The mean [F] and the components as columns [F, count] in order of decreasing variance, with the dtype
        and on the device of the features.

    Raises:
        UsageError: There are fewer components.
    """
    most = min(len(features) - 1, features.shape[1])
    if count > most:
        raise UsageError(
            f"expected at least {count} principal components, but {len(features)} images with "
            f"{features.shape[1]} features have {most}; choose fewer --bits or another --backbone"
        )
    pca = PCA(count, svd_solver="covariance_eigh").fit(features.double().cpu().numpy())
    mean, components = torch.from_numpy(pca.mean_), torch.from_numpy(pca.components_.T.copy())
    return mean.to(features), components.to(features)


def random_rotation(size: int) -> Tensor:
    """Draw an orthogonal matrix [size, size] in double precision on the CPU."""
    rotation: Tensor = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q
    return rotation
