"""CIBHash against the values of its published code."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench import Backbone, create_method
from hashbench_methods.cibhash import CIBHash, nt_xent, symmetric_bernoulli_kl

FORWARD = {"rtol": 1e-4, "atol": 1e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture
def values(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    return golden("cibhash")


def cibhash(features: int = 40, bits: int = 24, **settings: float) -> CIBHash:
    """Build a method on a network that returns the first values of an image."""
    network = nn.Sequential(nn.Flatten(), Slice(features))
    method = create_method("cibhash", Backbone(network, image_size=16), bits, **settings)
    assert isinstance(method, CIBHash)
    return method


class Slice(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, values: Tensor) -> Tensor:
        return values[:, : self.width]


def test_a_training_step(values: dict[str, Tensor]) -> None:
    method = cibhash()
    fc1 = nn.Linear(40, 64)
    fc2 = nn.Linear(64, 24)
    for layer, name in ((fc1, "fc1"), (fc2, "fc2")):
        layer.load_state_dict({part: values[f"{name}_{part}"] for part in ("weight", "bias")})
    method.head = nn.Sequential(fc1, nn.ReLU(), fc2)
    losses = method.feature_losses(values["features1"], values["features2"])
    losses["loss"].backward()

    for view in ("1", "2"):
        centred = method.encode_features(values[f"features{view}"]).detach()
        torch.testing.assert_close(centred + 0.5, values[f"prob{view}"], **FORWARD)
        signs = method.codes(centred).to_signs()  # type: ignore[union-attr]
        np.testing.assert_array_equal(signs, values[f"code{view}"].numpy())
    torch.testing.assert_close(losses["loss"].detach(), values["loss"], **FORWARD)
    torch.testing.assert_close(losses["contrastive"].detach(), values["contrastive_loss"], **FORWARD)
    torch.testing.assert_close(losses["kl"].detach(), values["kl_loss"], **FORWARD)
    torch.testing.assert_close(fc1.weight.grad, values["grad_fc1_weight"], **BACKWARD)
    torch.testing.assert_close(fc2.weight.grad, values["grad_fc2_weight"], **BACKWARD)


def test_nt_xent_pair_by_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(10, 6, generator=generator)
    total = 0.0
    for i in range(10):
        logits = [F.cosine_similarity(codes[i], codes[j], dim=0) / 0.7 for j in range(10) if j != i]
        positive = F.cosine_similarity(codes[i], codes[(i + 5) % 10], dim=0) / 0.7
        total += float(torch.stack(logits).logsumexp(0) - positive)
    torch.testing.assert_close(nt_xent(codes[:5], codes[5:], temperature=0.7), torch.tensor(total / 10))


def test_neither_divergence_moves_its_second_argument(values: dict[str, Tensor]) -> None:
    prob1, prob2 = values["prob1"].clone().requires_grad_(), values["prob2"].clone().requires_grad_()
    symmetric_bernoulli_kl(prob1, prob2).backward()
    # d KL(p, q) / dp = log(p / (1 - p)) - log(q / (1 - q)), summed over bits, averaged over images, halved
    expected = (torch.logit(values["prob1"]) - torch.logit(values["prob2"])) / 2 / len(prob1)
    torch.testing.assert_close(prob1.grad, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(prob2.grad, -expected, rtol=1e-3, atol=1e-5)
    certain = torch.tensor([[0.0, 1.0]])
    assert symmetric_bernoulli_kl(certain, 1 - certain).isfinite()


def test_both_settings_reach_the_loss(values: dict[str, Tensor]) -> None:
    features = [values[f"features{view}"] for view in "12"]
    method = cibhash(temperature=0.7, kl_weight=0.5)
    codes = [torch.where(method.encode_features(view) >= 0, 1.0, -1.0) for view in features]
    losses = method.feature_losses(*features)
    torch.testing.assert_close(losses["contrastive"], nt_xent(codes[0], codes[1], temperature=0.7))
    torch.testing.assert_close(losses["loss"], losses["contrastive"] + 0.5 * losses["kl"])


def test_the_released_head() -> None:
    head = cibhash(features=700, bits=16).head
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(p.shape) for p in head.parameters()] == [(1024, 700), (1024,), (16, 1024), (16,)]
