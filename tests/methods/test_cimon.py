"""CIMON against the values of its published code."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.given_features import GivenFeatures
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench import Backbone, UsageError, create_method
from hashbench.method import similarity
from hashbench.method.losses import nt_xent
from hashbench.method.similarity import CosineDistances, cosine_distances, fit_half_gaussians
from hashbench_methods.cimon import CIMON, pseudo_similarity, semantic_loss

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture
def values(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    return golden("cimon")


def cimon(width: int = 16, bits: int = 16, **settings: float) -> CIMON:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, width)), image_size=4)
    method = create_method("cimon", backbone, bits, **settings)
    assert isinstance(method, CIMON)
    return method


@pytest.mark.parametrize("view", "12")
def test_pseudo_similarity(values: dict[str, Tensor], view: str) -> None:
    features, labels = values[f"features{view}"], values[f"cluster_labels{view}"]
    found, weights = pseudo_similarity(features, labels, float(values["threshold"]))
    assert torch.equal(found, values[f"similarity{view}"].float())
    torch.testing.assert_close(weights, values[f"weights{view}"], **FORWARD)
    # If the clusters agree with all similarities, the weights are the confidences.
    confidence = torch.empty_like(weights)
    for i in range(len(features)):
        clusters = torch.where(found[i] == 1, 0, 1 + torch.arange(len(features)))
        confidence[i] = pseudo_similarity(features, clusters)[1][i]
    torch.testing.assert_close(confidence, values[f"confidence{view}"], **FORWARD)


@pytest.mark.parametrize("view", "12")
def test_distances(values: dict[str, Tensor], view: str) -> None:
    units = F.normalize(values[f"features{view}"])
    torch.testing.assert_close(cosine_distances(units), values[f"distances{view}"], **FORWARD)
    fit = fit_half_gaussians(CosineDistances(units, square=True), first_edge=0)
    expected = [float(values[f"{name}{view}"]) for name in ("mode", "std_left", "std_right")]
    assert [*fit] == pytest.approx(expected, rel=1e-4)


def test_weights_pair_by_pair(values: dict[str, Tensor]) -> None:
    """The confidence is the part of a half Gaussian between the distance and the threshold."""
    features, labels = values["features1"][:13], values["cluster_labels1"][:13]
    units = F.normalize(features)
    mode, left, right = fit_half_gaussians(CosineDistances(units, square=True), first_edge=0)

    def gaussian(distance: float, std: float) -> float:
        return (1 + math.erf((distance - mode) / std / math.sqrt(2))) / 2

    found, weights = pseudo_similarity(features, labels, threshold=0.6)
    distances = cosine_distances(units)
    for i in range(13):
        for j in range(13):
            distance = float(distances[i, j])
            if distance <= 0.6:
                part = (gaussian(0.6, left) - gaussian(distance, left)) / gaussian(0.6, left)
            else:
                part = (gaussian(distance, right) - gaussian(0.6, right)) / (1 - gaussian(0.6, right))
            agree = (labels[i] == labels[j]) == (distance <= 0.6)
            assert float(found[i, j]) == (1 if distance <= 0.6 else -1)
            assert float(weights[i, j]) == pytest.approx(min(1, max(0, part)) * bool(agree), abs=1e-5)


def test_weights_are_finite_for_a_threshold_far_from_all_distances() -> None:
    units = torch.eye(6)[:, :5] + 0.5
    for threshold in (0.0, 2.0):
        found, weights = pseudo_similarity(units, torch.arange(6), threshold)
        assert weights.isfinite().all()
        assert found.diagonal().eq(1).all()


@pytest.mark.parametrize("view", "12")
@pytest.mark.parametrize("target", "12")
def test_semantic_loss(values: dict[str, Tensor], view: str, target: str) -> None:
    rows = values["batch_index"]
    block = rows[:, None], rows
    targets = (values[f"{name}{target}"].float()[block] for name in ("similarity", "weights"))
    loss = semantic_loss(values[f"hash{view}"], *targets)
    torch.testing.assert_close(loss, values[f"semantic_hash{view}_target{target}"], **FORWARD)


def test_a_training_step(values: dict[str, Tensor]) -> None:
    rows = values["batch_index"]
    hashes = [values[f"hash{view}"].clone().requires_grad_() for view in "12"]
    total = torch.zeros(())
    for target in "12":
        found, weights = pseudo_similarity(values[f"features{target}"], values[f"cluster_labels{target}"])
        for view in hashes:
            total = total + semantic_loss(view, found[rows[:, None], rows], weights[rows[:, None], rows])
    contrastive = nt_xent(*hashes, temperature=float(values["temperature"]))
    loss = total + values["eta"] * contrastive
    loss.backward()
    torch.testing.assert_close(contrastive.detach(), values["contrastive_loss"], **FORWARD)
    torch.testing.assert_close(loss.detach(), values["loss"], **FORWARD)
    for view, hash_ in zip("12", hashes, strict=True):
        torch.testing.assert_close(hash_.grad, values[f"grad_hash{view}"], **BACKWARD)


def test_the_method_takes_the_same_step(values: dict[str, Tensor]) -> None:
    """Its targets are those of one set of features, which each view is compared with twice."""
    method = cimon(clusters=8)
    method.prepare(GivenFeatures(values["features1"]))
    method.clusters, method.fc = values["cluster_labels1"].long(), nn.Identity()  # type: ignore[assignment]
    losses = method.feature_losses(
        values["hash1"].atanh(), values["hash2"].atanh(), indices=values["batch_index"]
    )
    semantic = 2 * (values["semantic_hash1_target1"] + values["semantic_hash2_target1"])
    torch.testing.assert_close(losses["semantic"], semantic, **FORWARD)
    torch.testing.assert_close(losses["contrastive"], values["contrastive_loss"], **FORWARD)
    torch.testing.assert_close(losses["loss"], semantic + 0.3 * values["contrastive_loss"], **FORWARD)


def test_clusters_of_separate_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(3).repeat(8)
    features = torch.eye(3)[groups] + 0.05 * torch.rand(24, 3, generator=generator)
    found = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002 (the generator that a run seeds)
        method = cimon(width=3, clusters=3)
        method.prepare(GivenFeatures(features))
        found.append(method.clusters)
    assert torch.equal(*found)
    same = found[0][:, None] == found[0]
    assert torch.equal(same, groups[:, None] == groups)


def test_too_many_images_or_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UsageError, match="cimon: expected fewer clusters than the 30 training images, got 30"
    ):
        cimon(clusters=30).prepare(GivenFeatures(torch.rand(30, 16)))
    monkeypatch.setattr(similarity, "MAX_IMAGES", 40)
    with pytest.raises(UsageError, match="cimon: expected at most 40 training images.*got 41"):
        cimon(clusters=8).prepare(GivenFeatures(torch.rand(41, 16)))
