"""WCH: Weighted Contrastive Hashing for unsupervised image retrieval, Yu et al., ACCV 2022.

Follows the released code, https://github.com/RosieYuu/WCH at commit d93c756 (MIT):
`TransformerModel/modeling.py` for the network, `train.py` for the loss. This folder's README lists where
paper, code and this file differ.

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

# Similarities of patch pairs held at once: 2**25 float32, 128 MiB. The whole of them is B·B·T·T, 10 GB for a
# batch of 256 images of 196 patches.
MAX_PAIRS = 2**25


def mutual_attention(tokens1: Tensor, tokens2: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Let the two views of an image attend to each other's tokens.

    Each token of one view asks for its like in the other, so that what only one view shows loses weight:
    `attended1[j]` is the mean of view 1's tokens, weighted by how alike (cosine) they are to token j of
    view 2.

    Args:
        tokens1: Tokens [B, T, D] of the first view.
        tokens2: Tokens [B, T, D] of the second view.
        temperature: Divides the cosine similarities before the softmax.

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
    """How much image j of the batch should count as a positive of image i.

    The similarity of two images is the mean over the first one's patches of the cosine to the nearest patch
    of the second. A softmax makes each row a distribution; then **column** j is divided by element (j, j).
    (The released code divides a matrix by the vector of its diagonal, which broadcasts along the columns.
    Dividing each row by its own diagonal looks alike and differs by up to 30 %.)

    Memory is bounded: beyond `MAX_PAIRS` pairs of patches, they are compared in pieces. Where several
    processes train, each gives the tokens of its part of the batch and gets the weights of the whole.

    Args:
        tokens1: Tokens [B, T, D] of the first view.
        tokens2: Tokens [B, T, D] of the second view.
        temperature: Divides the similarities before the softmax.
        nearest_patch: Take the nearest patch of the second image; off: the mean over all of them.
        local_similarity: Compare patches; off: the cosine of the two images' mean tokens.

    Returns:
        Weights [B, B]; the diagonal is 1, rows do not sum to 1.
    """
    if not local_similarity:
        tokens1, tokens2 = tokens1.mean(1, keepdim=True), tokens2.mean(1, keepdim=True)
    compare = _nearest_patches if nearest_patch else _all_patches
    similarity = gather(compare(tokens1, gather(tokens2)))  # each process compares its own images to all
    weights = torch.softmax(similarity / temperature, dim=-1)
    return weights / weights.diagonal()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _nearest_patches(tokens1: Tensor, tokens2: Tensor) -> Tensor:
    """Mean over patches of the cosine to the nearest patch of each image: [A, T, D], [B, T, D] -> [A, B]."""
    patches1, patches2 = F.normalize(tokens1, dim=-1).flatten(0, 1), F.normalize(tokens2, dim=-1)
    nearest: Tensor = _Nearest.apply(patches1, patches2)
    return nearest.view(*tokens1.shape[:2], -1).mean(1)


def _all_patches(tokens1: Tensor, tokens2: Tensor) -> Tensor:
    """Mean cosine over all pairs of patches of two images: [A, T, D], [B, T, D] -> [A, B]."""
    means1, means2 = (F.normalize(tokens, dim=-1).mean(1) for tokens in (tokens1, tokens2))
    return means1 @ means2.T


class _Nearest(torch.autograd.Function):
    """Cosine of each patch to the nearest one of each image: unit patches [P, D], [B, T, D] -> [P, B].

    Autograd would keep all pairs of patches for the backward pass, and give most of them a gradient of 0.
    Here only the places of the nearest are kept.
    """

    @staticmethod
    def forward(ctx: Any, patches1: Tensor, patches2: Tensor) -> Tensor:
        images, patches, _ = patches2.shape
        candidates = patches2.flatten(0, 1)  # [B·T, D]
        found = [
            (part @ candidates.T).view(-1, images, patches).max(-1)
            for part in torch.split(patches1, max(1, MAX_PAIRS // len(candidates)))
        ]
        first = torch.arange(images, device=patches2.device) * patches  # of the patches of each image
        places = torch.cat([nearest.indices for nearest in found]) + first  # [P, B], rows of candidates
        ctx.save_for_backward(patches1, candidates, places)
        ctx.shape = patches2.shape
        return torch.cat([nearest.values for nearest in found])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        patches1, candidates, places = ctx.saved_tensors
        with torch.enable_grad():
            candidates = candidates.detach().requires_grad_()
            # Row p: the sum over images of the gradient times the nearest patch.
            of_patches1 = F.embedding_bag(
                places, candidates, per_sample_weights=gradient.contiguous(), mode="sum"
            )
            (of_candidates,) = torch.autograd.grad(of_patches1, candidates, patches1)
        return of_patches1.detach(), of_candidates.view(ctx.shape)


def weighted_contrastive_loss(
    codes1: Tensor, codes2: Tensor, weights: Tensor, temperature: float = 0.3, *, balance: bool = True
) -> Tensor:
    """Cross-entropy of the code similarities against the patch weights, plus the balance of the first codes.

    Args:
        codes1: Codes [B, bits] of the first view, ±1.
        codes2: Codes [B, bits] of the second view.
        weights: Soft targets [B, B], row i for image i of the first view; gradients flow into them, too.
        temperature: Divides the similarities, which are inner products over bits and so in −1..1.
        balance: Add the balance term.

    Returns:
        A scalar.
    """
    similarity = codes1 @ codes2.T / codes1.shape[1]
    contrastive = F.cross_entropy(similarity / temperature, weights)
    return contrastive + bit_balance(codes1) if balance else contrastive


def bit_balance(codes: Tensor) -> Tensor:
    """Mean over bits of the squared batch mean, minus the mean square of the codes [B, bits]; a scalar.

    The second term is 1 for codes of ±1, but its gradient drives the values behind the signs away from 0.
    """
    return codes.mean(0).square().mean() - codes.square().mean()


class HashHead(nn.Module):
    """Mean token -> layer norm -> 1024 -> ReLU -> bits -> tanh."""

    def __init__(self, dim: int, bits: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, 1024)
        self.fc2 = nn.Linear(1024, bits)
        for layer in (self.fc1, self.fc2):  # as released, the unusual biases included
            nn.init.kaiming_uniform_(layer.weight, mode="fan_out")
            nn.init.normal_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T, D] -> values in −1..1 [B, bits]."""
        hidden = F.relu(self.fc1(self.norm(tokens.mean(1))))
        return torch.tanh(self.fc2(hidden))


class WCH(HashMethod):
    """Weighted Contrastive Hashing: similarities of patches, distilled into the codes."""

    class Hyperparameters(HashMethod.Hyperparameters):
        """Defaults are those of the released code."""

        mutual_attention: bool = Field(
            default=True, description="Views attend to each other's tokens in training; off: raw tokens."
        )
        patch_weighting: bool = Field(
            default=True,
            description="Patch similarities as soft targets; off: each image is its only positive.",
        )
        nearest_patch: bool = Field(
            default=True, description="Similarity by each patch's nearest one; off: the mean over all pairs."
        )
        local_similarity: bool = Field(
            default=True, description="Similarity of patches; off: of the images' mean tokens."
        )
        balance: bool = Field(default=True, description="The balance term of the loss.")
        attention_temperature: float = Field(
            default=1.0, gt=0, description="Softmax of the mutual attention."
        )
        weight_temperature: float = Field(default=0.2, gt=0, description="Softmax of the patch weights.")
        similarity_temperature: float = Field(
            default=0.3, gt=0, description="Softmax of the code similarities."
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.head = HashHead(backbone.dim, bits)

    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        """Losses of two views, each [B, 3, H, W]: `loss`, `contrastive`, `balance`."""
        settings = self.hyperparameters
        tokens1, tokens2 = (self.backbone.tokens(view) for view in views)
        # Softmaxes at low temperatures and a loss on signs do not bear half precision.
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
        """Values in −1..1 [B, bits] from the raw tokens: a single image has no partner to attend to."""
        values: Tensor = self.head(self.backbone.tokens(images))
        return values
