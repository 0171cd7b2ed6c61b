"""NSH: Naturally-Sorted Hashing, Yu et al., IJCAI 2022 (Learning to Hash Naturally Sorts).

Written from the behaviour of the re-implementation in https://github.com/kamwoh/sdc at commit 9981beb, which
has no licence. The README in this folder lists the differences.

Shapes: B images, D the width of the latent features.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod, signs

LATENT = 1024  # width of the latent features, as in the re-implementation


def soft_permutation(similarity: Tensor, temperature: float) -> Tensor:
    """Return, for each row of similarities, a relaxed permutation matrix that sorts it (SoftSort, ICML 2020).

    Args:
        similarity: Similarities [B, N].
        temperature: Temperature of the softmax; the lower, the closer to a permutation.

    Returns:
        [B, N, N]; row k of matrix i distributes a weight of 1 over the columns of the row i of similarities,
        mostly to its k-th largest value.
    """
    ordered = similarity.sort(dim=1, descending=True).values
    return (-(ordered[:, :, None] - similarity[:, None, :]).abs() / temperature).softmax(dim=2)


def sorted_contrastive_loss(
    hash: Tensor,
    latents: Tensor,
    positives: int = 2,
    temperature: float = 0.3,
    sort_temperature: float | None = None,
    double_softmax: bool = False,
) -> Tensor:
    """Contrast the latent features of an image with those of the other view, in the order of the codes.

    For each image, all images are sorted by the similarity of their codes in the second view to its code in
    the first view. In this order, their latent features of the first view are compared with its latent
    feature of the second view. The first ones are the positives, each against all that are not among them.

    Args:
        hash: Values [2B, bits] in (-1, 1), the first view above the second.
        latents: Latent features [2B, D] of unit length, the first view above the second.
        positives: Number of positives of an image, less than B.
        temperature: Divisor of the similarities of latent features.
        sort_temperature: Temperature of the soft sorting; None: 1 / bits.
        double_softmax: Apply the softmax to its own result, as the re-implementation does.

    Returns:
        A scalar, averaged over images and positives.
    """
    bits, half = hash.shape[1], len(hash) // 2
    similarity = hash[:half] @ hash[half:].T / (2 * bits) + 0.5  # [B, B], in 0..1
    order = soft_permutation(similarity, 1 / bits if sort_temperature is None else sort_temperature)
    # The similarities are sorted and not the latent features, which is equal and takes D times less memory.
    cosine = torch.einsum("ikj,ij->ik", order, latents[half:] @ latents[:half].T)  # [B, B]
    first, others = cosine[:, :positives, None], cosine[:, None, positives:]
    logits = torch.cat([first, others.expand(-1, first.shape[1], -1)], dim=2) / temperature
    if double_softmax:
        logits = logits.softmax(dim=2)
    return -logits.log_softmax(dim=2)[:, :, 0].mean()


class NSH(FeatureMethod):
    """NSH: a head for codes and a head for latent features, which the codes sort."""

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the re-implementation, except for `double_softmax`."""

        positives: int = Field(default=2, ge=1, description="Number of positives of an image.")
        temperature: float = Field(
            default=0.3, gt=0, description="Temperature of the softmax over similarities of latent features."
        )
        sort_temperature: float | None = Field(
            default=None, gt=0, description="Temperature of the soft sorting, by default 1 / bits."
        )
        quantization_weight: float = Field(
            default=1.0, ge=0, description="Weight of the squared distance between values and signs."
        )
        double_softmax: bool = Field(
            default=False, description="Apply the softmax to its own result, as the re-implementation does."
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.hash = nn.Linear(backbone.feature_dim, bits)
        self.latent = nn.Linear(backbone.feature_dim, LATENT)

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """Return the losses for the features [B, F] of two views: `loss`, `contrastive`, `quantization`."""
        settings = self.hyperparameters
        both = torch.cat(features)
        values, latents = self.encode_features(both), F.normalize(self.latent(both), dim=1)
        contrastive = sorted_contrastive_loss(
            values,
            latents,
            settings.positives,
            settings.temperature,
            settings.sort_temperature,
            settings.double_softmax,
        )
        quantization = (values - signs(values)).square().mean()
        loss = contrastive + settings.quantization_weight * quantization
        return {"loss": loss, "contrastive": contrastive, "quantization": quantization}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the values [B, bits] in (-1, 1)."""
        return torch.tanh(self.hash(features))
