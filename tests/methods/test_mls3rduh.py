"""MLS3RDUH against the values of its published code."""

import math
from collections.abc import Callable

import pytest
import torch
from helpers.given_features import GivenFeatures
from helpers.manifold import reconstruct
from torch import Tensor, nn

from hashbench import Backbone, UsageError, create_method
from hashbench.method import similarity
from hashbench_methods.mls3rduh import MLS3RDUH, log_cosh_loss, reconstructed_similarity
from hashbench_methods.mls3rduh.method import _manifold_similarity

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture
def values(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    return golden("mls3rduh")


def mls3rduh(width: int, bits: int = 16, **settings: float) -> MLS3RDUH:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, width)), image_size=4)
    method = create_method("mls3rduh", backbone, bits, **settings)
    assert isinstance(method, MLS3RDUH)
    return method


def test_reconstructed_similarity(values: dict[str, Tensor]) -> None:
    settings = (int(values["neighbours"]), int(values["manifold_neighbours"]))
    found = reconstructed_similarity(values["features"], *settings, alpha=float(values["alpha"]))
    torch.testing.assert_close(found, values["similarity"], **FORWARD)
    similarity, isolated, manifold = reconstruct(values["features"], *settings)
    torch.testing.assert_close(similarity, values["similarity"], **FORWARD)
    torch.testing.assert_close(manifold, values["manifold_similarity"], **FORWARD)
    assert isolated == values["isolated"].tolist()
    cosine = reconstructed_similarity(values["features"], 0, 0)  # without neighbours, the cosines remain
    untouched = (values["cosine"] > 1e-4) & (values["cosine"] < 0.999)
    torch.testing.assert_close(cosine[untouched], 2 * values["cosine"][untouched] - 1, **FORWARD)


@pytest.mark.parametrize("seed", [1, 2])
def test_reconstructed_similarity_image_by_image(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 12, generator=generator).repeat(7, 1) + torch.randn(35, 12, generator=generator)
    found = reconstructed_similarity(features, 4, 6)
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found, reconstruct(features, 4, 6)[0], **FORWARD)
    assert {-1.0, 1.0} < {*found.unique().tolist()}


@pytest.mark.parametrize("neighbours", [3, 8])
def test_an_image_is_no_neighbour_of_itself(neighbours: int) -> None:
    """Keep its similarity of 1, also where fewer others than neighbours have a positive cosine."""
    few = reconstructed_similarity(torch.tensor([[2.0, 1], [-1, 1], [2, 0], [0, 1]]), neighbours, 2)
    assert few.diagonal().tolist() == [1] * 4
    near = reconstructed_similarity(torch.tensor([[0.0, 1], [-1, -1], [-2, 1]]), 2, 3)
    assert near[0, 1] == near[1, 0] == 1  # one of the two nearest, though its cosine is negative


def test_images_without_a_path_are_no_neighbours_on_the_manifold() -> None:
    """Two pairs of images: in each, one is the nearest of the other."""
    features = torch.tensor([[1, 0.1, 0.5], [1, 0.2, 0.5], [0.1, 1, 0.5], [0.2, 1, 0.5]])
    found = reconstructed_similarity(features, 1, 4)
    assert found[0, 1] == found[2, 3] == 1
    assert (found[:2, 2:].abs() < 1).all()  # not among the nearest by cosine, and not confirmed
    assert (reconstructed_similarity(features, 3, 4) == 1).all()  # now there are paths to all


def test_manifold_similarity_is_that_of_a_random_walk() -> None:
    edges = torch.tensor([[0, 0.5, 0.25], [0.5, 0, 0.75], [0.25, 0.75, 0]])
    degrees = edges.sum(1)
    step = edges / (degrees[:, None] * degrees).sqrt()
    walk = sum(
        (0.1 * (0.9**length) * torch.matrix_power(step, length) for length in range(200)), torch.zeros(3, 3)
    )
    torch.testing.assert_close(_manifold_similarity(edges, alpha=0.9), walk)


def test_a_training_step(values: dict[str, Tensor]) -> None:
    rows = values["batch_index"]
    hashes = values["hash"].clone().requires_grad_()
    loss = log_cosh_loss(hashes, values["similarity"][rows[:, None], rows])
    loss.backward()
    torch.testing.assert_close(loss.detach(), values["loss"], **FORWARD)
    torch.testing.assert_close(hashes.grad, values["grad_hash"], **BACKWARD)


def test_log_cosh_of_large_differences() -> None:
    hashes = torch.tensor([[20.0, 0.0]], requires_grad=True)  # a difference of 200, whose cosh overflows
    loss = log_cosh_loss(hashes, torch.zeros(1, 1))
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(200 - math.log(2)))
    torch.testing.assert_close(hashes.grad, torch.tensor([[20.0, 0.0]]))
    assert log_cosh_loss(torch.ones(3, 4), torch.ones(3, 3)).abs() < 1e-6


def test_the_method_takes_the_same_step(values: dict[str, Tensor]) -> None:
    method = mls3rduh(16, near_fraction=8 / 40, manifold_fraction=12 / 40)
    method.prepare(GivenFeatures(values["features"]))
    method.fc = nn.Identity()  # type: ignore[assignment]
    logits = values["hash"].atanh().requires_grad_()
    loss = method.feature_losses(logits, indices=values["batch_index"])["loss"]
    loss.backward()
    torch.testing.assert_close(loss.detach(), values["loss"], **FORWARD)
    torch.testing.assert_close(logits.grad, values["grad_hash"] * (1 - values["hash"] ** 2), **BACKWARD)


def test_fractions_of_the_training_images() -> None:
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).abs()
    method = mls3rduh(8)
    method.prepare(GivenFeatures(features))
    assert torch.equal(method.similarity, reconstructed_similarity(features, 3, 4))


def test_too_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "MAX_IMAGES", 40)
    mls3rduh(8).prepare(GivenFeatures(torch.rand(40, 8)))
    with pytest.raises(UsageError, match="mls3rduh: expected at most 40 training images.*got 41.*--protocol"):
        mls3rduh(8).prepare(GivenFeatures(torch.rand(41, 8)))
