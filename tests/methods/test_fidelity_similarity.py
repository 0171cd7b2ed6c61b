"""Training of the methods on similarities, against their published recipes written out without shared code.

See test_fidelity.py.
"""

import copy
import math
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.fidelity import BATCH_SIZE, BITS, IMAGES, assert_same, cosine, descend, trained
from helpers.manifold import reconstruct
from torch import Tensor, nn

PAIRS = [*product(range(BATCH_SIZE), repeat=2)]


def image_features(method: Any) -> Tensor:
    """Return the features of all training images by the network before training."""
    images = torch.stack([torch.from_numpy(np.asarray(IMAGES[index]).copy()) for index in range(len(IMAGES))])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        features: Tensor = (
            copy.deepcopy(method.backbone).eval().pooled(((images / 255 - mean) / std).permute(0, 3, 1, 2))
        )
    return features


def all_distances(features: Tensor) -> Tensor:
    distances = torch.zeros(len(features), len(features))
    for i, j in combinations(range(len(features)), 2):
        distances[i, j] = distances[j, i] = 1 - cosine(features[i], features[j])
    return distances


def gaussians(distances: Tensor, first_edge: float) -> tuple[float, float, float]:
    """Return the mode and the standard deviations to its left and right."""
    inside = [
        ((distances > first_edge + 0.01 * k) & (distances < first_edge + 0.01 * (k + 1))).sum()
        for k in range(100)
    ]
    mode = 0.01 * int(torch.stack(inside).argmax())
    sides = distances[distances <= mode], distances[distances > mode]
    left, right = (float(((side.double() - mode) ** 2).mean().sqrt()) for side in sides)
    return mode, left, right


def codes(fc: nn.Linear, features: Tensor) -> Tensor:
    return torch.tanh(features @ fc.weight.T + fc.bias)


def test_ssdh(tmp_path: Path) -> None:
    run = trained(
        "ssdh",
        "training_losses",
        tmp_path,
        "backbone=test_vit",
        "lr=1",
        "alpha=0.5",
        "beta=0",
        "diagonal=false",
    )
    network, fc = copy.deepcopy(run.before.backbone.network).train(), copy.deepcopy(run.before.fc)
    distances = all_distances(image_features(run.before))
    mode, left, _ = gaussians(distances[torch.ones_like(distances).triu(1) == 1], -1e-8)

    def loss(images: Tensor, indices: Tensor) -> Tensor:
        hashes = codes(fc, network(images))
        total = torch.zeros(())
        for i, j in PAIRS:
            distance = distances[indices[i], indices[j]]
            if distance < mode - 0.5 * left or distance > mode:
                target = 1 if distance < mode else -1
                total = total + ((hashes[i] * hashes[j]).mean() - target) ** 2
        return total / BATCH_SIZE**2

    assert len({float(distances[i, j] > mode) for i, j in PAIRS}) == 2
    optimizer = torch.optim.Adam([*network.parameters(), *fc.parameters()], eps=1.0)
    losses = descend(run, loss, optimizer, lambda _: 1.0)
    assert_same(run, losses, {"fc.weight": fc.weight})


def test_mls3rduh(tmp_path: Path) -> None:
    run = trained(
        "mls3rduh", "training_losses", tmp_path, "backbone=test_vit", "images.resize=null", "lr=0.4",
        "near_fraction=0.2", "manifold_fraction=0.3",
    )  # fmt: skip
    network, fc = copy.deepcopy(run.before.backbone.network).train(), copy.deepcopy(run.before.fc)
    similarity = reconstruct(image_features(run.before), 6, 9)[0]

    def loss(images: Tensor, indices: Tensor) -> Tensor:
        hashes = codes(fc, network(images))
        differences = [(hashes[i] * hashes[j]).mean() - similarity[indices[i], indices[j]] for i, j in PAIRS]
        return torch.stack(differences).cosh().log().mean()

    optimizer = torch.optim.SGD([*network.parameters(), *fc.parameters()], weight_decay=1e-5)
    losses = descend(run, loss, optimizer, lambda _: 0.4)
    assert_same(run, losses, {"fc.weight": fc.weight})


def test_cimon(tmp_path: Path) -> None:
    run = trained(
        "cimon", "training_losses", tmp_path, "backbone=test_vit", "images.resize=null", "lr=0.05",
        "threshold=0.2", "clusters=4",
    )  # fmt: skip
    network, fc = copy.deepcopy(run.before.backbone.network).train(), copy.deepcopy(run.before.fc)
    distances, clusters = all_distances(image_features(run.before)), run.after.clusters
    mode, left, right = gaussians(distances, 0)

    def gaussian(distance: Tensor | float, std: float) -> float:
        return (1 + math.erf((float(distance) - mode) / std / math.sqrt(2))) / 2

    def target(i: Tensor, j: Tensor) -> tuple[float, float]:
        """Return the similarity and the weight of two training images."""
        similar = bool(distances[i, j] <= 0.2)
        if similar != bool(clusters[i] == clusters[j]):
            return 0.0, 0.0
        std, limit = (left, gaussian(0.2, left)) if similar else (right, 1 - gaussian(0.2, right))
        weight = abs(gaussian(distances[i, j], std) - gaussian(0.2, std)) / limit
        return (1.0 if similar else -1.0), min(weight, 1)

    def loss(images1: Tensor, images2: Tensor, indices: Tensor) -> Tensor:
        views = [codes(fc, network(images)) for images in (images1, images2)]
        similarities, weights = torch.tensor([target(indices[i], indices[j]) for i, j in PAIRS]).T
        total = torch.zeros(())
        for hashes in views:  # twice, as there are two equal sets of targets
            products = torch.stack([hashes[i] @ hashes[j] for i, j in PAIRS]) / BITS
            total = total + 2 * (weights * (products - similarities) ** 2).sum() / BATCH_SIZE**2
        rows = torch.cat(views)
        for i in range(2 * BATCH_SIZE):
            logits = nn.functional.cosine_similarity(rows[i], rows) / 0.5
            positive = (i + BATCH_SIZE) % (2 * BATCH_SIZE)
            others = torch.cat([logits[:i], logits[i + 1 :]])
            total = total + 0.3 * (others.logsumexp(0) - logits[positive]) / (2 * BATCH_SIZE)
        return total

    parts = [*network.parameters(), *fc.parameters()]
    optimizer = torch.optim.SGD(parts, momentum=0.9, weight_decay=1e-5)
    losses = descend(run, loss, optimizer, lambda _: 0.05)
    assert_same(run, losses, {"fc.weight": fc.weight})
