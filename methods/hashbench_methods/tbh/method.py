"""TBH: Auto-Encoding Twin-Bottleneck Hashing, Shen et al., CVPR 2020.

Written from the behaviour of the released code, https://github.com/ymcidence/TBH at commit 778dd1c, which has
no licence. The README in this folder lists the differences between the paper, the released code and this
file.

Shapes: B images, F features, C dimensions of the continuous bottleneck.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench.backbones import Backbone
from hashbench.distributed import gather
from hashbench.method.base import FeatureMethod, TrainingSet, straight_through_sign

EPSILON = 1e-8  # added to the degrees, as in the released code


def code_adjacency(codes: Tensor, power: float = 1.4) -> Tensor:
    """Compute the similarity of codes, (1 − Hamming distance / bits) to a power.

    The distance is the absolute value of an expression that is linear in each code. Equal codes, for which it
    is 0, have no gradient.

    Args:
        codes: Codes of {0, 1} [B, bits].
        power: Exponent; larger values weaken the edges between different codes.

    Returns:
        Similarities in 0..1 [B, B].
    """
    differences = codes @ (codes - 1).T
    distances = (differences + differences.T).abs()
    return (1 - distances / codes.shape[1]) ** power


def normalized_adjacency(adjacency: Tensor) -> Tensor:
    """Divide each weight of a graph by the root of the degrees of its two nodes, as in a GCN.

    Args:
        adjacency: Symmetric weights [B, B], not negative.

    Returns:
        The normalized weights [B, B].
    """
    scale = (adjacency.sum(1) + EPSILON).rsqrt()
    return scale[:, None] * adjacency * scale


class TBH(FeatureMethod):
    """TBH: an auto-encoder that passes its continuous bottleneck through a graph of the binary one."""

    views: ClassVar[int] = 1

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        hidden: int = Field(default=1024, gt=0, description="Units of the hidden layers.")
        continuous: int = Field(default=512, gt=0, description="Dimension of the continuous bottleneck.")
        power: float = Field(
            default=1.4,
            ge=1,
            description="Exponent of the code similarities; 1.4 in the code, 1 in the paper.",
        )
        adversarial_weight: float = Field(
            default=1.0,
            ge=0,
            description="Weight of the term by which the encoder deceives the discriminators.",
        )
        relu_reconstruction: bool = Field(
            default=True, description="Reconstruct only values that are not negative, as those of VGG-16 are."
        )
        standardize: bool = Field(
            default=False, description="Shift features to mean 0, and scale all by one factor to variance 1."
        )

    hyperparameters: Hyperparameters
    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        features, hidden, continuous = (
            backbone.feature_dim,
            hyperparameters.hidden,
            hyperparameters.continuous,
        )
        self.encoder = nn.Linear(features, hidden)
        self.binary = nn.Linear(hidden, bits)
        self.continuous = nn.Linear(hidden, continuous)
        self.gcn = nn.Linear(continuous, continuous)
        self.decoder = nn.Sequential(nn.Linear(continuous, hidden), nn.ReLU(), nn.Linear(hidden, features))
        self.binary_discriminator = nn.Linear(bits, 1)
        self.continuous_discriminator = nn.Linear(continuous, 1)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(()))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("backbone."):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def prepare(self, training: TrainingSet) -> None:
        """Compute the mean and the standard deviation of the features, if they are standardized."""
        if self.hyperparameters.standardize:
            features = training.features()
            self.mean.copy_(features.mean(0))
            self.deviation.copy_((features - self.mean).square().mean().sqrt())

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """Return the losses for the features [B, F] of a batch; see `losses`."""
        batch = (features[0] - self.mean) / self.deviation
        # Every process computes the loss of the whole batch, with the numbers of the first one.
        bits = gather(torch.randint(2, (len(batch), self.bits), device=batch.device).float())[: len(batch)]
        values = torch.rand(len(batch), self.continuous.out_features, device=batch.device)
        return self.losses(batch, bits, gather(values)[: len(batch)])

    def losses(self, features: Tensor, random_bits: Tensor, random_values: Tensor) -> dict[str, Tensor]:
        """Return the losses of both players.

        The terms of the actor do not reach the discriminators, and those of the critic reach nothing else.
        One step on their sum is therefore a step of each player from the same weights.

        Args:
            features: Features [B, F], standardized if that is chosen.
            random_bits: Random codes of {0, 1} [B, bits].
            random_values: Random values in 0..1 [B, C].

        Returns:
            Scalars by name: `reconstruction`, summed over the batch; `critic`, the loss of the
            discriminators; `actor`, the loss of everything else; and `loss`, the sum of the last two.
        """
        codes, bottleneck = self._bottlenecks(features)
        reconstruction = self.decoder(bottleneck)
        if self.hyperparameters.relu_reconstruction:
            reconstruction = reconstruction.relu()
        squared_error = (reconstruction - features).square().sum() / 2
        deception = critic = features.new_zeros(())
        for own, random, discriminator in (
            (codes, random_bits, self.binary_discriminator),
            (bottleneck, random_values, self.continuous_discriminator),
        ):
            weight, bias = discriminator.weight, discriminator.bias
            deception = deception - _discrimination_loss(own, random, weight.detach(), bias.detach())
            critic = critic + _discrimination_loss(own.detach(), random, weight, bias)
        actor = squared_error + self.hyperparameters.adversarial_weight * deception
        return {"loss": actor + critic, "reconstruction": squared_error, "actor": actor, "critic": critic}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the logits of the bits [B, bits]; the graph, which connects images, is not used."""
        logits: Tensor = self.binary(self.encoder((features - self.mean) / self.deviation).relu())
        return logits

    def _bottlenecks(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of {0, 1} [B, bits] and the continuous bottleneck behind the graph [B, C]."""
        hidden = self.encoder(features).relu()
        # The gradient of a bit is that of its probability.
        codes = (straight_through_sign(2 * torch.sigmoid(self.binary(hidden)) - 1) + 1) / 2
        continuous = torch.sigmoid(self.continuous(hidden))
        graph = normalized_adjacency(code_adjacency(codes, self.hyperparameters.power))
        return codes, torch.sigmoid(graph @ self.gcn(continuous))


def _discrimination_loss(own: Tensor, random: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the cross-entropy of a linear discriminator that should tell random rows from own ones."""
    real, fake = F.linear(random, weight, bias), F.linear(own, weight, bias)
    return -F.logsigmoid(real).mean() - F.logsigmoid(-fake).mean()
