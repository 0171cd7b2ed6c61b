"""WCH: Weighted Contrastive Hashing for unsupervised image retrieval, Yu et al., ACCV 2022.

Follows the released code, https://github.com/RosieYuu/WCH at commit d93c756 (MIT):
`TransformerModel/modeling.py` for the network, `train.py` for the loss. The README in this folder lists the
differences between the paper, the released code and this file.

Shapes: B images, T tokens, D channels.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench.backbones import Backbone
from hashbench.distributed import gather
from hashbench.method.base import HashMethod, straight_through_sign
from hashbench.method.one_pass import of_views

# Maximum number of patch similarities in memory: 2**25 float32, 128 MiB. There are B·B·T·T in all, 10 GB for
# a batch of 256 images of 196 patches.
MAX_PAIRS = 2**25


def mutual_attention(tokens1: Tensor, tokens2: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Let the two views of an image attend to each other's tokens.

    `attended1[j]` is the mean of the tokens of view 1, weighted by a softmax over their cosine similarities
    to token j of view 2. Content that only one view shows therefore loses weight.

    Args:
        tokens1: Tokens [B, T, D] of the first view.
        tokens2: Tokens [B, T, D] of the second view.
        temperature: Divisor of the cosine similarities before the softmax.

    Returns:
        `attended1`, `attended2`, both [B, T, D].
    """
    similarity = F.normalize(tokens1, dim=-1) @ F.normalize(tokens2, dim=-1).transpose(1, 2)  # [B, T1, T2]
    attended1 = torch.softmax(similarity.transpose(1, 2) / temperature, dim=-1) @ tokens1
    attended2 = torch.softmax(similarity / temperature, dim=-1) @ tokens2
    return attended1, attended2


def patch_weights(
    tokens1: Tensor,
    tokens2: Tensor,
    temperature: float = 0.2,
    *,
    nearest_patch: bool = True,
    local_similarity: bool = True,
) -> Tensor:
    """Return the weight of image j of the batch as a positive of image i.

    The similarity of two images is the mean, over the patches of the first image, of the cosine similarity
    to the nearest patch of the second. A softmax turns each row into a distribution; then **column** j is
    divided by element (j, j). (The released code divides a matrix by the vector of its diagonal, which
    broadcasts over rows. Dividing each row by its own diagonal element looks similar, but differs by up to
    30 %.)

    Memory is bounded: if there are more than `MAX_PAIRS` pairs of patches, they are compared in parts. In
    distributed training, each process passes the tokens of its part of the batch and gets the weights of the
    whole batch.

    Args:
        tokens1: Tokens [B, T, D] of the first view.
        tokens2: Tokens [B, T, D] of the second view.
        temperature: Divisor of the similarities before the softmax.
        nearest_patch: Use the nearest patch of the second image; if False, the mean over all its patches.
        local_similarity: Compare patches; if False, compare the mean tokens of the two images.

    Returns:
        Weights [B, B] with a diagonal of 1; rows do not sum to 1.
    """
    if not local_similarity:
        tokens1, tokens2 = tokens1.mean(1, keepdim=True), tokens2.mean(1, keepdim=True)
    compare = _nearest_patches if nearest_patch else _all_patches
    similarity = gather(compare(tokens1, gather(tokens2)))  # each process compares its own images with all
    weights = torch.softmax(similarity / temperature, dim=-1)
    return weights / weights.diagonal()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _nearest_patches(tokens1: Tensor, tokens2: Tensor) -> Tensor:
    """Average over patches the cosine to the nearest patch of each image: [A, T, D], [B, T, D] -> [A, B]."""
    patches1, patches2 = F.normalize(tokens1, dim=-1).flatten(0, 1), F.normalize(tokens2, dim=-1)
    nearest: Tensor = _Nearest.apply(patches1, patches2)
    return nearest.view(*tokens1.shape[:2], -1).mean(1)


def _all_patches(tokens1: Tensor, tokens2: Tensor) -> Tensor:
    """Average the cosine over all pairs of patches of two images: [A, T, D], [B, T, D] -> [A, B]."""
    means1, means2 = (F.normalize(tokens, dim=-1).mean(1) for tokens in (tokens1, tokens2))
    return means1 @ means2.T


class _Nearest(torch.autograd.Function):
    """Cosine of each patch to the nearest patch of each image: unit patches [P, D], [B, T, D] -> [P, B].

    Autograd would store the similarities of all pairs of patches for the backward pass, most of which get a
    gradient of 0. Only the indices of the nearest patches are stored here.
    """

    @staticmethod
    def forward(ctx: Any, patches1: Tensor, patches2: Tensor) -> Tensor:
        images, patches, _ = patches2.shape
        candidates = patches2.flatten(0, 1)  # [B·T, D]
        maxima = [
            (part @ candidates.T).view(-1, images, patches).max(-1)
            for part in torch.split(patches1, max(1, MAX_PAIRS // len(candidates)))
        ]
        first = torch.arange(images, device=patches2.device) * patches  # index of each image's first patch
        indices = torch.cat([part.indices for part in maxima]) + first  # [P, B], rows of candidates
        ctx.save_for_backward(patches1, candidates, indices)
        ctx.shape = patches2.shape
        return torch.cat([part.values for part in maxima])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        patches1, candidates, indices = ctx.saved_tensors
        with torch.enable_grad():
            candidates = candidates.detach().requires_grad_()
            # Row p is the sum over images of the gradient times the nearest patch.
            gradient1 = F.embedding_bag(
                indices, candidates, per_sample_weights=gradient.contiguous(), mode="sum"
            )
            (gradient2,) = torch.autograd.grad(gradient1, candidates, patches1)
        return gradient1.detach(), gradient2.view(ctx.shape)


def weighted_contrastive_loss(
    codes1: Tensor, codes2: Tensor, weights: Tensor, temperature: float = 0.3, *, balance: bool = True
) -> Tensor:
    """Return the cross-entropy of code similarities and patch weights, plus the balance of the first codes.

    Args:
        codes1: Codes [B, bits] of the first view, ±1.
        codes2: Codes [B, bits] of the second view.
        weights: Soft targets [B, B], row i for image i of the first view. Gradients flow into them.
        temperature: Divisor of the similarities, which are inner products divided by bits, in −1..1.
        balance: Add the balance term.

    Returns:
        A scalar.
    """
    similarity = codes1 @ codes2.T / codes1.shape[1]
    contrastive = F.cross_entropy(similarity / temperature, weights)
    return contrastive + bit_balance(codes1) if balance else contrastive


def bit_balance(codes: Tensor) -> Tensor:
    """Return the mean over bits of the squared batch mean, minus the mean square of the codes [B, bits].

    The second term is 1 for codes of ±1, but its gradient drives the values before the sign away from 0.
    """
    return codes.mean(0).square().mean() - codes.square().mean()


class HashHead(nn.Module):
    """Hash head: mean token -> layer norm -> 1024 -> ReLU -> bits -> tanh."""

    def __init__(self, dim: int, bits: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, 1024)
        self.fc2 = nn.Linear(1024, bits)
        for layer in (self.fc1, self.fc2):  # as in the released code, including the unusual biases
            nn.init.kaiming_uniform_(layer.weight, mode="fan_out")
            nn.init.normal_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [B, T, D] to values in −1..1 [B, bits]."""
        hidden = F.relu(self.fc1(self.norm(tokens.mean(1))))
        return torch.tanh(self.fc2(hidden))


class WCH(HashMethod):
    """Weighted Contrastive Hashing: patch similarities are the soft targets of the code similarities."""

    class Hyperparameters(HashMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        mutual_attention: bool = Field(
            default=True,
            description="Let views attend to each other's tokens in training; false: use raw tokens.",
        )
        patch_weighting: bool = Field(
            default=True,
            description="Use patch similarities as soft targets; false: each image is its only positive.",
        )
        nearest_patch: bool = Field(
            default=True,
            description="Compare each patch with its nearest one; false: average over all pairs.",
        )
        local_similarity: bool = Field(
            default=True, description="Compare patches; false: compare the mean tokens of the images."
        )
        balance: bool = Field(default=True, description="Add the balance term to the loss.")
        attention_temperature: float = Field(
            default=1.0, gt=0, description="Temperature of the softmax of the mutual attention."
        )
        weight_temperature: float = Field(
            default=0.2, gt=0, description="Temperature of the softmax of the patch weights."
        )
        similarity_temperature: float = Field(
            default=0.3, gt=0, description="Temperature of the softmax over code similarities."
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.head = HashHead(backbone.dim, bits)

    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        """Return the losses for two views, each [B, 3, H, W]: `loss`, `contrastive`, `balance`."""
        settings = self.hyperparameters
        tokens1, tokens2 = of_views(self.backbone.tokens, views, self.backbone)
        # Softmaxes at low temperatures and a loss on signs need full precision.
        with torch.autocast(tokens1.device.type, enabled=False):
            tokens1, tokens2 = tokens1.float(), tokens2.float()
            if settings.mutual_attention:
                tokens1, tokens2 = mutual_attention(tokens1, tokens2, settings.attention_temperature)
            if settings.patch_weighting:
                weights = patch_weights(
                    tokens1,
                    tokens2,
                    settings.weight_temperature,
                    nearest_patch=settings.nearest_patch,
                    local_similarity=settings.local_similarity,
                )
            codes1, codes2 = (
                gather(straight_through_sign(self.head(tokens))) for tokens in (tokens1, tokens2)
            )
            if not settings.patch_weighting:
                weights = torch.eye(len(codes1), device=codes1.device)
            loss = weighted_contrastive_loss(
                codes1, codes2, weights, settings.similarity_temperature, balance=settings.balance
            )
            balance = bit_balance(codes1).detach()
            contrastive = loss.detach() - balance if settings.balance else loss.detach()
            return {"loss": loss, "contrastive": contrastive, "balance": balance}

    def encode(self, images: Tensor) -> Tensor:
        """Return values in −1..1 [B, bits] from the raw tokens, without mutual attention."""
        values: Tensor = self.head(self.backbone.tokens(images))
        return values
