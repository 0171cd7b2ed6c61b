"""UH-BDNN: Learning to Hash with Binary Deep Neural Network, Do et al., ECCV 2016, unsupervised.

Written from the behaviour of the released code, https://github.com/dzungdoan6/uh-bdnn at commit 050e220,
which is for academic use only, and of the port in https://github.com/CISiPLab/cisip-FIRe at commit e8826c4
(BSD-3-Clause). The README in this folder lists the differences.

Shapes: B images of F features.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod, TrainingSet, signs
from hashbench.method.linear import principal_components
from hashbench_methods.itq import iterative_quantization


def uhbdnn_loss(
    hash: Tensor,
    targets: Tensor,
    features: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor,
    weights: Tensor,
) -> Tensor:
    """Return the loss of the network for given codes.

    Args:
        hash: Outputs [B, bits] of the encoder.
        targets: Codes ±1 [B, bits], from which the features are reconstructed.
        features: Features [B, F].
        decoder_weight: Weight [F, bits] of the decoder.
        decoder_bias: Bias [F] of the decoder.
        weights: Weights of the distance between outputs and codes, of the independence and of the balance of
            bits [3].

    Returns:
        A scalar.
    """
    code, independence, balance = weights
    rows, bits = hash.shape
    loss: Tensor = (features - targets @ decoder_weight.T - decoder_bias).square().sum() / (2 * rows)
    loss = loss + code / (2 * rows) * (hash - targets).square().sum()
    correlation = hash.T @ hash / rows - torch.eye(bits).to(hash)
    loss = loss + independence / 2 * correlation.square().sum()
    loss = loss + balance / (2 * rows) * hash.sum(0).square().sum()
    return loss


@torch.no_grad()
def update_targets(
    targets: Tensor,
    hash: Tensor,
    features: Tensor,
    decoder: nn.Linear,
    weight: float,
    sweeps: int,
) -> Tensor:
    """Lower the loss in the codes, for a fixed network, by discrete cyclic coordinate descent.

    Each bit in turn gets its best value for the current other bits.

    Args:
        targets: Codes ±1 [B, bits] to start from.
        hash: Outputs [B, bits] of the encoder.
        features: Features [B, F].
        decoder: Reconstructs features from codes.
        weight: Weight of the distance between outputs and codes.
        sweeps: Most updates of each bit; they end earlier if no bit changes.

    Returns:
        Codes ±1 [B, bits].
    """
    codes = targets.clone()
    pull = (features - decoder.bias) @ decoder.weight + weight * hash
    coupling = decoder.weight.T @ decoder.weight
    coupling.fill_diagonal_(0)
    for _ in range(sweeps):
        before = codes.clone()
        for bit in range(codes.shape[1]):
            codes[:, bit] = signs(pull[:, bit] - codes @ coupling[bit])
        if codes.equal(before):
            break
    return codes


class UHBDNN(FeatureMethod):
    """UH-BDNN: an encoder with outputs close to codes, and a decoder from codes to features.

    Attributes:
        targets: Codes ±1 of the training images by ITQ [N, bits], where the updates of a batch start.
    """

    views: ClassVar[int] = 1
    uses_indices: ClassVar[bool] = True

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        code_weight: float = Field(
            default=0.05, ge=0, description="Weight of the distance between outputs and codes."
        )
        independence_weight: float = Field(
            default=0.01, ge=0, description="Weight of the independence of bits."
        )
        balance_weight: float = Field(default=5e-7, ge=0, description="Weight of the balance of bits.")
        iterations: int = Field(default=50, ge=0, description="Iterations of ITQ for the first codes.")
        sweeps: int = Field(
            default=10, ge=0, description="Most updates of each bit of a code in a step; 0: codes stay fixed."
        )

    hyperparameters: Hyperparameters
    least: Tensor
    range: Tensor

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        # Features are scaled to 0..1 by the training features, with one range for all dimensions.
        self.register_buffer("least", torch.zeros(backbone.feature_dim))
        self.register_buffer("range", torch.ones(()))
        self.encoder = nn.Sequential(
            nn.Linear(backbone.feature_dim, 1024),
            nn.Sigmoid(),
            nn.Linear(1024, 512),
            nn.Sigmoid(),
            nn.Linear(512, bits),
        )
        self.decoder = nn.Linear(bits, backbone.feature_dim)

    def prepare(self, training: TrainingSet) -> None:
        """Compute the codes of the training images by ITQ, and the decoder that fits them best."""
        features = training.features()
        least, most = features.aminmax(dim=0)
        self.least.copy_(least)
        self.range.copy_((most - least).max().clamp(min=torch.finfo(features.dtype).eps))
        features = self._scaled(features).double()
        mean, components = principal_components(features, self.bits)
        values = (features - mean) @ components
        rotated = values @ iterative_quantization(values, self.hyperparameters.iterations)
        codes = signs(rotated)
        self.targets = codes.float()
        # The codes are updated by the decoder from the first step on, so that it must fit them.
        inputs = torch.cat([codes, torch.ones_like(codes[:, :1])], dim=1)
        solution = torch.linalg.pinv(inputs) @ features  # [bits + 1, F]
        with torch.no_grad():
            self.decoder.weight.copy_(solution[:-1].T)
            self.decoder.bias.copy_(solution[-1])

    def feature_losses(self, *features: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Return the loss for the features [B, F] of a batch, for codes that are updated first."""
        settings = self.hyperparameters
        (batch,) = (self._scaled(view) for view in features)
        values = self.encoder(batch)
        start = self.targets[indices]
        targets = update_targets(start, values, batch, self.decoder, settings.code_weight, settings.sweeps)
        weights = torch.tensor([settings.code_weight, settings.independence_weight, settings.balance_weight])
        loss = uhbdnn_loss(values, targets, batch, self.decoder.weight, self.decoder.bias, weights)
        return {"loss": loss}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the outputs [B, bits] of the encoder."""
        values: Tensor = self.encoder(self._scaled(features))
        return values

    def _scaled(self, features: Tensor) -> Tensor:
        return (features - self.least) / self.range
