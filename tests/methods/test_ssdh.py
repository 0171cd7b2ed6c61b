"""SSDH against the values of its published code, and the distances that it shares with CIMON."""

from collections.abc import Callable

import pytest
import torch
from helpers.given_features import GivenFeatures
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench import Backbone, create_method
from hashbench.method import similarity
from hashbench.method.similarity import CosineDistances, cosine_distances, distance_histogram
from hashbench_methods.ssdh import SSDH, distance_thresholds, similarity_loss, similarity_targets

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture
def values(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    return golden("ssdh")


def ssdh(features: Tensor, bits: int = 16, **settings: float) -> SSDH:
    """Build a method on a network that is not used, and prepare it."""
    width = features.shape[1]
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, width)), image_size=4)
    method = create_method("ssdh", backbone, bits, **settings)
    assert isinstance(method, SSDH)
    method.prepare(GivenFeatures(features))
    return method


def squares(features: Tensor) -> Tensor:
    (distances,) = CosineDistances(F.normalize(features), square=True)
    return distances


@pytest.mark.parametrize("kind", ["vector", "released"])
def test_thresholds(values: dict[str, Tensor], kind: str) -> None:
    distances = values["distances"] if kind == "vector" else squares(values["features"])
    torch.testing.assert_close(
        distance_histogram(distances, -1e-8), values[f"histogram_{kind}"].long(), rtol=0, atol=0
    )
    left, right = distance_thresholds(distances, float(values["alpha"]), float(values["beta"]))
    torch.testing.assert_close(left, values[f"threshold_left_{kind}"], **FORWARD)
    torch.testing.assert_close(right, values[f"threshold_right_{kind}"], **FORWARD)
    mode, _ = distance_thresholds(distances, alpha=0)
    torch.testing.assert_close(mode, values["mode"], **FORWARD)
    narrow_left, narrow_right = distance_thresholds(distances, alpha=1, beta=1)
    torch.testing.assert_close(mode - narrow_left, values[f"std_left_{kind}"], **FORWARD)
    torch.testing.assert_close(narrow_right - mode, values[f"std_right_{kind}"], **FORWARD)


def test_thresholds_of_other_widths(values: dict[str, Tensor]) -> None:
    left, right = distance_thresholds(squares(values["features"]), alpha=1.5, beta=2.5)
    torch.testing.assert_close(left, values["threshold_left_released_alpha1p5"], **FORWARD)
    torch.testing.assert_close(right, values["threshold_right_released_beta2p5"], **FORWARD)


def test_the_port_mirrors_the_halves_around_other_points(values: dict[str, Tensor]) -> None:
    """Reproduce the thresholds of FIRe: it mirrors the halves of our mode with beta and alpha, not with 2."""
    distances, alpha, beta = squares(values["features"]).flatten(), 1.5, 2.5
    mode, _ = distance_thresholds(distances, alpha=0)
    left, right = distances[distances <= mode], distances[distances > mode]
    left, right = torch.cat([left, beta * mode - left]), torch.cat([right, alpha * mode - right])
    for threshold, side in (
        (left.mean() - alpha * left.std(correction=0), "left"),
        (right.mean() + beta * right.std(correction=0), "right"),
    ):
        torch.testing.assert_close(threshold, values[f"fire_threshold_{side}_alpha1p5_beta2p5"], **FORWARD)


@pytest.mark.parametrize("kind", ["vector", "released"])
def test_targets(values: dict[str, Tensor], kind: str) -> None:
    distances = cosine_distances(F.normalize(values["features"]))
    pairs = torch.ones_like(distances).triu(1).bool()
    torch.testing.assert_close(distances[pairs], values["distances"], **FORWARD)
    thresholds = values[f"threshold_left_{kind}"], values[f"threshold_right_{kind}"]
    targets = similarity_targets(distances, *thresholds)
    assert torch.equal(targets, values[f"similarity_{kind}"].float())


@pytest.mark.parametrize("kind", ["vector", "released"])
def test_a_training_step(values: dict[str, Tensor], kind: str) -> None:
    rows = values["batch_index"]
    targets = values[f"similarity_{kind}"].float()[rows[:, None], rows]
    logits = values["logits"].clone().requires_grad_()
    hashes = torch.tanh(logits)
    hashes.retain_grad()
    loss = similarity_loss(hashes, targets)
    loss.backward()
    torch.testing.assert_close(hashes.detach(), values["hash"], **FORWARD)
    torch.testing.assert_close(loss.detach(), values[f"loss_{kind}"], **FORWARD)
    if kind == "released":
        assert torch.equal(targets, values["batch_similarity"].float())
        torch.testing.assert_close(hashes.grad, values["grad_hash"], **BACKWARD)
        torch.testing.assert_close(logits.grad, values["grad_logits"], **BACKWARD)


@pytest.mark.parametrize("diagonal", [True, False])
def test_the_method_takes_the_same_step(values: dict[str, Tensor], diagonal: bool) -> None:
    method = ssdh(values["features"], diagonal=diagonal)
    logits = values["logits"].clone().requires_grad_()
    method.fc = nn.Identity()  # type: ignore[assignment]
    loss = method.feature_losses(logits, indices=values["batch_index"])["loss"]
    loss.backward()
    torch.testing.assert_close(
        loss.detach(), values["loss_released" if diagonal else "loss_vector"], **FORWARD
    )
    if diagonal:
        torch.testing.assert_close(logits.grad, values["grad_logits"], **BACKWARD)


@pytest.mark.parametrize("square", [True, False])
def test_distances_in_parts(monkeypatch: pytest.MonkeyPatch, square: bool) -> None:
    units = F.normalize(torch.randn(11, 5, generator=torch.Generator().manual_seed(0)))
    expected = [
        0.0 if i == j else float(1 - units[i] @ units[j])
        for i in range(11)
        for j in range(0 if square else i + 1, 11)
    ]
    monkeypatch.setattr(similarity, "MAX_DISTANCES", 33)  # three rows at once
    parts = [*CosineDistances(units, square)]
    assert len(parts) == 4
    torch.testing.assert_close(torch.cat(parts), torch.tensor(expected))


def test_memory_of_the_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thresholds are those of all distances at once, whatever the parts are."""
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)).abs()
    whole = ssdh(features)
    monkeypatch.setattr(similarity, "MAX_DISTANCES", 100)
    parts = ssdh(features)
    assert (parts.left, parts.right) == pytest.approx((whole.left, whole.right), rel=1e-6)


def test_a_distance_on_an_edge_is_in_no_bin() -> None:
    distances = torch.tensor([0.0, 0.25, 0.255, 0.999, 1.0, 1.7])
    assert distance_histogram(distances, 0).nonzero().flatten().tolist() == [25, 99]
    assert distance_histogram(distances, -1e-8).sum() == 4


def test_thresholds_of_equal_distances() -> None:
    left, right = distance_thresholds(
        torch.full((9,), 0.125)
    )  # in the bin from 0.12, so that none is left of it
    torch.testing.assert_close(left, torch.tensor(0.12))
    torch.testing.assert_close(right, torch.tensor(0.13))


def test_a_pair_between_the_thresholds_is_ignored() -> None:
    targets = similarity_targets(torch.tensor([[0.0, 0.3], [0.5, 0.9]]), 0.25, 0.6)
    assert targets.tolist() == [[1, 0], [0, -1]]
    hashes = torch.tensor([[0.5, 1.0], [-1.0, 0.25]], requires_grad=True)
    loss = similarity_loss(hashes, targets)
    expected = (((0.25 + 1) / 2 - 1) ** 2 + ((1 + 0.0625) / 2 + 1) ** 2) / 4
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_an_image_is_similar_to_itself() -> None:
    """Keep the only term that pulls codes to ±1, also if no pair is similar."""
    distances = torch.tensor([[0, 0.3], [0.3, 0]])
    assert similarity_targets(distances, -0.05, 0.2).tolist() == [[1, -1], [-1, 1]]
    assert similarity_targets(distances, 0.5, 0.2).tolist() == [[1, 0], [0, 1]]  # the thresholds cross
