"""MeCoQ: Contrastive Quantization with Code Memory for Unsupervised Image Retrieval, Wang et al., AAAI 2022.

Written from the behaviour of the released code, https://github.com/gimpong/AAAI22-MeCoQ at commit 7c96e92,
which has no licence. The README in this folder lists the differences between the paper, the released code
and this file.

Shapes: B images, M books of W words of dimension D, Q rows in the queue.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench.backbones import Backbone
from hashbench.codes import ProductCodes
from hashbench.method.base import FeatureMethod, TrainingSet
from hashbench.method.product import Words, assign_codewords, count_books, product_codes


def soft_quantize(features: Tensor, codebooks: Tensor, alpha: float = 10.0) -> tuple[Tensor, Tensor]:
    """Replace each subvector of a feature by the softmax-weighted sum of the codewords of its book.

    Args:
        features: Features [B, M·D]; each subvector is normalized.
        codebooks: Codewords [M, W, D] of unit length.
        alpha: Factor of the inner products in the softmax; larger values give harder assignments.

    Returns:
        Soft codes, the weights of the codewords [B, M, W], and the quantized features [B, M·D], which are not
        normalized.
    """
    subvectors = F.normalize(features.view(len(features), len(codebooks), -1), dim=2)
    soft_codes = torch.softmax(alpha * torch.einsum("bmd,mwd->bmw", subvectors, codebooks), dim=2)
    return soft_codes, _reconstruct(soft_codes, codebooks)


def debiased_contrastive_loss(
    reconstruction1: Tensor,
    reconstruction2: Tensor,
    temperature: float,
    positive_prior: float,
    queue: Tensor | None = None,
    released: bool = False,
) -> Tensor:
    """Contrast the views of each image with all other rows, and correct for negatives of the same class.

    The sum over the N = 2B − 2 negatives of a row, and over the queue, is replaced by an estimate of what it
    would be without the share of negatives that have the class of the row. It has a lower bound.

    Args:
        reconstruction1: Quantized features [B, M·D] of the first view.
        reconstruction2: Quantized features [B, M·D] of the second view.
        temperature: Divisor of the cosine similarities, T.
        positive_prior: Assumed share of negatives with the class of the row; 0 disables the correction.
        queue: Quantized features of earlier images [Q, M·D], which are more negatives and not normalized.
        released: Compute the loss of the released code, in which each positive is combined with the negatives
            of all rows, and the bound is exp(−N / T) instead of N · exp(−1 / T).

    Returns:
        A scalar.
    """
    rows = F.normalize(torch.cat([reconstruction1, reconstruction2]), dim=1)  # [2B, M·D]
    similarity = (rows @ rows.T / temperature).exp()
    numbers = torch.arange(len(rows), device=rows.device)
    partner = numbers.roll(len(reconstruction1))
    positive = similarity[numbers, partner]
    excluded = F.one_hot(numbers, len(rows)) + F.one_hot(partner, len(rows))
    negative = similarity.masked_fill(excluded.bool(), 0).sum(1)
    if queue is not None:
        negative = negative + (rows @ queue.T / temperature).exp().sum(1)
    count = len(rows) - 2
    bound = count * math.exp(-1 / temperature)
    if released:  # a column [2B, 1], which combines with the row of negatives [2B] to a table
        positive, bound = positive[:, None], math.exp(-count / temperature)
    negative = (negative - positive_prior * count * positive) / (1 - positive_prior)
    return -(positive / (positive + negative.clamp_min(bound))).log().mean()


class MeCoQ(FeatureMethod):
    """MeCoQ: contrastive learning of product codes, with a queue of the codes of earlier images."""

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code for Flickr25k at 32 bits."""

        words: Words = Field(default=256, description="Number of codewords per book, a power of 2.")
        dim: int = Field(default=16, gt=0, description="Dimension of a codeword.")
        alpha: float = Field(default=10.0, gt=0, description="Hardness of the soft quantization.")
        temperature: float = Field(default=0.45, gt=0, description="Temperature of the similarities.")
        positive_prior: float = Field(
            default=0.15, ge=0, lt=1, description="Assumed share of negatives with the class of the image."
        )
        entropy_weight: float = Field(default=1.0, ge=0, description="Weight of the entropy of soft codes.")
        codeword_weight: float = Field(
            default=0.5, ge=0, description="Weight of the mean inner product of the codewords of a book."
        )
        queue: int = Field(default=384, ge=0, description="Number of soft codes in the queue; 0: no queue.")
        queue_begin_epoch: int = Field(
            default=5, ge=0, description="Number of epochs after which the queue is used."
        )
        released: bool = Field(
            default=True, description="Combine each positive with the negatives of all rows, like the code."
        )
        trained_codebooks: bool = Field(
            default=False, description="Train the codebooks, which the released code leaves at random."
        )

    hyperparameters: Hyperparameters
    queue: Tensor
    pointer: Tensor
    block: Tensor
    seen: Tensor

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        words, dim = hyperparameters.words, hyperparameters.dim
        books = count_books("mecoq", bits, words)
        self.head = nn.Linear(backbone.feature_dim, books * dim)
        directions = F.normalize(nn.init.xavier_uniform_(torch.empty(books, words, dim)), dim=2)
        self.codebooks = nn.Parameter(directions, requires_grad=hyperparameters.trained_codebooks)
        self.register_buffer("queue", torch.zeros(hyperparameters.queue, books, words))
        for name in ("pointer", "block", "seen"):  # next row of the queue; size of a batch; images seen
            self.register_buffer(name, torch.tensor(0))
        self.images = 0  # of an epoch

    def prepare(self, training: TrainingSet) -> None:
        """Remember the number of training images, by which epochs are counted."""
        self.images = len(training)

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """Return the losses for the features [B, F] of two views, and put their soft codes into the queue."""
        settings, codewords = self.hyperparameters, self._codewords()
        (codes1, rows1), (codes2, rows2) = (
            soft_quantize(self.head(view), codewords, settings.alpha) for view in features
        )
        begun = self.seen + len(rows1) > settings.queue_begin_epoch * self.images
        # A copy, since the backward pass needs the queue as it is now.
        queue = _reconstruct(self.queue.clone(), codewords) if begun else None
        contrastive = debiased_contrastive_loss(
            rows1, rows2, settings.temperature, settings.positive_prior, queue, settings.released
        )
        entropy = (_entropy(codes1) + _entropy(codes2)) / 2
        similarity = codewords.mean(1).square().sum(1).mean()  # mean inner product of all pairs of a book
        loss = contrastive + settings.entropy_weight * entropy + settings.codeword_weight * similarity
        self.seen += len(rows1)
        for codes in (codes1, codes2):
            self._enqueue(codes.detach())
        return {"loss": loss, "contrastive": contrastive, "entropy": entropy, "codewords": similarity}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the features [B, M·D] before quantization, not normalized."""
        values: Tensor = self.head(features)
        return values

    def codes(self, values: Tensor) -> ProductCodes:
        """Return the codewords with the largest inner products with features [B, M·D]."""
        codewords = self._codewords().detach()
        subvectors = values.detach().to(codewords.device).view(len(values), len(codewords), -1)
        # On the sphere, the codeword with the largest inner product is the nearest one.
        words = assign_codewords(F.normalize(subvectors, dim=2).flatten(1), codewords)
        return product_codes(words, codewords, "inner_product")

    def query_codes(self, values: Tensor) -> NDArray[np.float32]:
        """Return the features [B, M·D] unquantized; the length of a subvector is the weight of its book."""
        features: NDArray[np.float32] = values.detach().cpu().numpy()
        return features

    def _codewords(self) -> Tensor:
        return F.normalize(self.codebooks, dim=2)

    def _enqueue(self, rows: Tensor) -> None:
        """Overwrite the oldest rows of the queue; a last, smaller batch takes the room of a whole one."""
        size = len(self.queue)
        if size:
            self.block.clamp_min_(len(rows))
            places = torch.arange(min(size, len(rows)), device=rows.device) + self.pointer
            self.queue[places % size] = rows[:size]
            self.pointer.add_(self.block).remainder_(size)


def _reconstruct(soft_codes: Tensor, codebooks: Tensor) -> Tensor:
    """Return the weighted sums of codewords, [N, M, W] and [M, W, D] -> [N, M·D]."""
    return torch.einsum("bmw,mwd->bmd", soft_codes, codebooks).flatten(1)


def _entropy(soft_codes: Tensor) -> Tensor:
    """Return the mean entropy of the distributions [B, M, W] over the words of a book."""
    logarithms = soft_codes.clamp_min(torch.finfo(soft_codes.dtype).tiny).log()
    return -(soft_codes * logarithms).sum(2).mean()
