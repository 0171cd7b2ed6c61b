"""Training steps of WCH, CIBHash, SPQ and BiHalf as in the programs of their authors.

The steps are reimplemented from what the released programs compute (the README of each method in
`methods/hashbench_methods` names repository and commit), at the same cost: float32, attention and
similarities computed in full, the network applied to each view separately. Each step takes its weights from
the method as hashbench builds it, so that both sides compute the same.

Shapes: B images, T tokens, D channels, K books of W words.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)
from torch.optim import Optimizer

from hashbench.backbones import Backbone
from hashbench_methods.bihalf import BiHalf
from hashbench_methods.cibhash import CIBHash
from hashbench_methods.spq import SPQ
from hashbench_methods.wch import WCH


class PublishedStep(nn.Module):
    """Network and loss. A subclass defines `forward`, the loss of views [B, 3, H, W], and `optimizer`.

    Attributes:
        reads_loss: True if the program reads the loss from the device in every step.
    """

    reads_loss: ClassVar[bool] = True

    @abstractmethod
    def optimizer(self) -> Optimizer:
        """Create the optimizer of the released program."""


def published_step(model: PublishedStep, optimizer: Optimizer, views: tuple[Tensor, ...]) -> None:
    """Run one step on a batch of views."""
    optimizer.zero_grad()
    loss = model(*views)
    if model.reads_loss:
        loss.item()
    loss.backward()
    optimizer.step()


class PublishedWCH(PublishedStep):
    """WCH: a vision transformer, all of which is trained."""

    def __init__(self, method: WCH) -> None:
        super().__init__()
        self.network = copy.deepcopy(method.backbone.network)
        for module in self.network.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # scores, softmax and product as separate operations
        self.norm, self.fc1, self.fc2 = (
            copy.deepcopy(layer) for layer in (method.head.norm, method.head.fc1, method.head.fc2)
        )

    def optimizer(self) -> Optimizer:
        """Create Adam with a learning rate of 1e-5."""
        return torch.optim.Adam(self.parameters(), lr=1e-5)

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """Compute the loss of two views."""
        tokens1 = self.network.forward_features(view1)[:, self.network.num_prefix_tokens :]
        tokens2 = self.network.forward_features(view2)[:, self.network.num_prefix_tokens :]
        alike = torch.einsum("bsd,btd->bst", F.normalize(tokens1, dim=-1), F.normalize(tokens2, dim=-1))
        attended1 = torch.einsum("bts,bsd->btd", torch.softmax(alike.transpose(1, 2), -1), tokens1)
        attended2 = torch.einsum("bst,btd->bsd", torch.softmax(alike, -1), tokens2)
        weights = self._weights(attended1, attended2)
        codes1, codes2 = self._codes(attended1), self._codes(attended2)
        logits = torch.einsum("ik,jk->ij", codes1, codes2) / codes1.shape[1] / 0.3
        means = codes1.sum(0) / len(codes1)
        balance = F.mse_loss(means, torch.zeros_like(means)) - F.mse_loss(codes1, torch.zeros_like(codes1))
        return F.cross_entropy(logits, weights) + balance

    def _weights(self, tokens1: Tensor, tokens2: Tensor) -> Tensor:
        """Compute the patch similarities of all pairs of images [B, B], all B·B·T·T at once."""
        pairs = torch.einsum("isd,jtd->ijst", F.normalize(tokens1, dim=-1), F.normalize(tokens2, dim=-1))
        weights = torch.softmax(pairs.max(-1)[0].mean(-1) / 0.2, dim=-1)
        diagonal = (torch.eye(len(weights), device=weights.device) * weights).sum(1)
        return weights / diagonal

    def _codes(self, tokens: Tensor) -> Tensor:
        values = torch.tanh(self.fc2(F.relu(self.fc1(self.norm(tokens.mean(1))))))
        return values + (values.sign() - values).detach()


class PublishedCIBHash(PublishedStep):
    """CIBHash: a head on the frozen VGG-16, which each view passes in every step."""

    def __init__(self, method: CIBHash) -> None:
        super().__init__()
        self.vgg = _frozen_vgg16(method.backbone)
        self.head = copy.deepcopy(method.head)

    def optimizer(self) -> Optimizer:
        """Create Adam with a learning rate of 1e-3 for the head."""
        return torch.optim.Adam(self.head.parameters(), lr=1e-3)

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """Compute the loss of two views."""
        prob1 = torch.sigmoid(self.head(_fc7(self.vgg, view1)))
        codes1 = _Sign.apply(prob1 - 0.5)
        prob2 = torch.sigmoid(self.head(_fc7(self.vgg, view2)))
        codes2 = _Sign.apply(prob2 - 0.5)
        divergence = (_divergence(prob1, prob2) + _divergence(prob2, prob1)) / 2
        # The program builds the mask in every step, on the CPU and entry by entry.
        batch = len(codes1)
        others = torch.ones(2 * batch, 2 * batch, dtype=torch.bool).fill_diagonal_(False)
        for row in range(batch):
            others[row, batch + row] = False
            others[batch + row, row] = False
        contrast = _pairwise_cosines(codes1, codes2) / 0.3
        return _contrastive_loss(contrast, others) + 0.001 * divergence


class PublishedSPQ(PublishedStep):
    """SPQ: a ResNet-18 and codebooks, all trained, with a separate forward pass per view."""

    def __init__(self, method: SPQ) -> None:
        super().__init__()
        self.network = copy.deepcopy(method.backbone.network)
        self.projection, self.head = copy.deepcopy(method.projection), copy.deepcopy(method.head)
        books, words, dim = method.codebooks.shape
        side_by_side = method.codebooks.detach().transpose(0, 1).reshape(words, books * dim)
        self.codebooks, self.dim = nn.Parameter(side_by_side.clone()), dim
        self.others = torch.empty(0, dtype=torch.bool)

    def optimizer(self) -> Optimizer:
        """Create Adam with a learning rate of 3e-4 and weight decay."""
        return torch.optim.Adam(self.parameters(), lr=3e-4, weight_decay=1e-5)

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """Compute the loss of two views."""
        features1, quantized1 = self._quantize(view1)
        features2, quantized2 = self._quantize(view2)
        if len(self.others) != 2 * len(view1):  # computed once per batch size
            ones = torch.eye(2 * len(view1), dtype=torch.bool, device=view1.device)
            self.others = ~(ones | ones.roll(len(view1), 0))
        first = _contrastive_loss(_pairwise_cosines(features1, quantized2) / 0.5, self.others)
        second = _contrastive_loss(_pairwise_cosines(features2, quantized1) / 0.5, self.others)
        return first + second

    def _quantize(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features and soft-quantized features [B, K·D], book by book."""
        features = self.head(F.relu(self.projection(self.network(view))))
        quantized = []
        books = torch.split(self.codebooks, self.dim, 1)
        for piece, book in zip(torch.split(features, self.dim, 1), books, strict=True):
            differences = piece.unsqueeze(1) - book.unsqueeze(0)  # [B, W, D]
            nearness = F.softmax(-5.0 * (differences * differences).sum(-1), dim=-1)
            quantized.append(nearness @ book)
        return features, torch.cat(quantized, 1)


class PublishedBiHalf(PublishedStep):
    """BiHalf: a linear head on the frozen VGG-16, which every image passes in every epoch."""

    reads_loss: ClassVar[bool] = False

    def __init__(self, method: BiHalf) -> None:
        super().__init__()
        self.vgg = _frozen_vgg16(method.backbone)
        self.fc = copy.deepcopy(method.fc)

    def optimizer(self) -> Optimizer:
        """Create SGD with momentum for the head."""
        return torch.optim.SGD(self.fc.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def forward(self, view: Tensor) -> Tensor:
        """Compute the loss of the images without augmentation."""
        features = _fc7(self.vgg, view)
        codes = _BiHalf.apply(self.fc(features))
        half = len(view) // 2
        of_codes = F.cosine_similarity(codes[:half], codes[half:])
        of_features = F.cosine_similarity(features[:half], features[half:])
        return F.mse_loss(of_codes, of_features)


class _Sign(torch.autograd.Function):
    """Sign in the forward pass, identity in the backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return torch.sign(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _BiHalf(torch.autograd.Function):
    """+1 for the larger half of each column, computed on the CPU and moved to the device in every step."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        rows, bits = values.shape
        order = values.sort(0, descending=True)[1]
        halves = torch.cat([torch.ones(rows // 2, bits), -torch.ones(rows - rows // 2, bits)])
        empty = torch.zeros(values.shape).to(values.device)
        codes = empty.scatter_(0, order, halves.to(values.device))
        ctx.save_for_backward(values, codes)
        return codes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        values, codes = ctx.saved_tensors
        pull: Tensor = 6 * (values - codes) / codes.numel()
        return gradient + pull


def _frozen_vgg16(backbone: Backbone) -> Any:
    """Build torchvision's VGG-16 up to fc7 from timm's weights, whose last two layers are convolutions."""
    vgg = torchvision.models.vgg16(weights=None)
    vgg.classifier = vgg.classifier[:6]
    layers = backbone.network.pre_logits
    weights = {f"features.{name}": value for name, value in backbone.network.features.state_dict().items()}
    for place, layer in ((0, layers.fc1), (3, layers.fc2)):
        weights[f"classifier.{place}.weight"] = layer.weight.flatten(1)
        weights[f"classifier.{place}.bias"] = layer.bias
    vgg.load_state_dict(weights)
    return vgg.requires_grad_(False)


def _fc7(vgg: Any, images: Tensor) -> Tensor:
    """Compute features [B, 4096] of images of 224 pixels, which need no pooling before fc6."""
    features: Tensor = vgg.classifier(vgg.features(images).flatten(1))
    return features


def _divergence(prob: Tensor, other: Tensor) -> Tensor:
    """Compute the divergence of the bits of one view from those of the other, which gets no gradient."""
    other = other.detach()
    ones = prob * (torch.log(prob + 1e-8) - torch.log(other + 1e-8))
    zeros = (1 - prob) * (torch.log(1 - prob + 1e-8) - torch.log(1 - other + 1e-8))
    return (ones + zeros).sum(1).mean()


def _pairwise_cosines(rows1: Tensor, rows2: Tensor) -> Tensor:
    """Compute the cosine similarities of all pairs of 2B rows, via a tensor [2B, 2B, D]."""
    rows = torch.cat([rows1, rows2])
    return F.cosine_similarity(rows.unsqueeze(1), rows.unsqueeze(0), dim=-1)


def _contrastive_loss(similarity: Tensor, others: Tensor) -> Tensor:
    """Compute the cross-entropy of each row's partner, placed first, against all `others`, bool [2B, 2B]."""
    batch = len(similarity) // 2
    partners = torch.cat([similarity.diag(batch), similarity.diag(-batch)]).unsqueeze(1)
    logits = torch.cat([partners, similarity[others].view(2 * batch, -1)], 1)
    return F.cross_entropy(logits, torch.zeros(2 * batch).to(logits.device).long())


PUBLISHED: dict[str, Callable[[Any], PublishedStep]] = {
    "wch": PublishedWCH,
    "cibhash": PublishedCIBHash,
    "spq": PublishedSPQ,
    "bihalf": PublishedBiHalf,
}
