"""NSH against the values of its re-implementation."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench import Backbone, create_method
from hashbench_methods.nsh import NSH, soft_permutation, sorted_contrastive_loss

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}
FORMS = {"paper": False, "released": True}


@pytest.fixture
def values(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    return golden("nsh")


def nsh(**settings: object) -> NSH:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 20)), image_size=4)
    method = create_method("nsh", backbone, 16, **settings)
    assert isinstance(method, NSH)
    return method


def test_the_soft_permutation(values: dict[str, Tensor]) -> None:
    order = soft_permutation(values["similarity"], float(values["softsort_temperature"]))
    torch.testing.assert_close(order, values["soft_permutation"], **FORWARD)
    # At a low temperature, it sorts.
    hard = soft_permutation(values["similarity"], 1e-6)
    ordered = torch.einsum("ikj,ij->ik", hard, values["similarity"])
    torch.testing.assert_close(ordered, values["sorted_similarity"], **FORWARD)


@pytest.mark.parametrize("form", FORMS)
def test_the_contrastive_loss(values: dict[str, Tensor], form: str) -> None:
    hashes, latents = (values[name].requires_grad_() for name in ("hash", "latents"))
    loss = sorted_contrastive_loss(
        hashes, latents, int(values["m"]), float(values["temperature"]), double_softmax=FORMS[form]
    )
    torch.testing.assert_close(loss.detach(), values[f"contrastive_loss_{form}"], **FORWARD)
    (loss + (hashes - hashes.detach().sign()).square().mean()).backward()
    torch.testing.assert_close(hashes.grad, values[f"grad_hash_{form}"], **BACKWARD)
    torch.testing.assert_close(latents.grad, values[f"grad_latents_{form}"], **BACKWARD)


@pytest.mark.parametrize("form", FORMS)
def test_the_method_computes_the_same_losses(values: dict[str, Tensor], form: str) -> None:
    method = nsh(double_softmax=FORMS[form])
    features = torch.randn(12, 20)
    # A linear layer that has the values of the file for these features.
    with torch.no_grad():
        method.hash.bias.zero_()
        method.hash.weight.copy_((torch.linalg.pinv(features) @ values["hash"].atanh()).T)
        method.latent = nn.Linear(20, 24, bias=False)
        method.latent.weight.copy_((torch.linalg.pinv(features) @ values["latents"] * 3).T)
    losses = method.feature_losses(*features.chunk(2))
    torch.testing.assert_close(losses["contrastive"], values[f"contrastive_loss_{form}"], **FORWARD)
    torch.testing.assert_close(losses["quantization"], values["quan_loss"], **FORWARD)
    torch.testing.assert_close(losses["loss"], values[f"loss_{form}"], **FORWARD)


@pytest.mark.parametrize("positives", [1, 3])
def test_the_loss_pair_by_pair(positives: int) -> None:
    """With a low temperature of sorting, positives are the nearest codes; all others are negatives."""
    generator = torch.Generator().manual_seed(0)
    hashes = torch.tanh(torch.randn(10, 8, generator=generator))
    latents = F.normalize(torch.randn(10, 6, generator=generator), dim=1)
    total = 0.0
    for i in range(5):
        nearest = sorted(range(5), key=lambda j: -float(hashes[i] @ hashes[5 + j]))
        logits = [float(latents[5 + i] @ latents[j]) / 0.5 for j in nearest]
        for k in range(positives):
            among = [logits[k], *logits[positives:]]
            total += math.log(sum(map(math.exp, among))) - logits[k]
    loss = sorted_contrastive_loss(hashes, latents, positives, 0.5, sort_temperature=1e-5)
    torch.testing.assert_close(loss, torch.tensor(total / 5 / positives), rtol=1e-4, atol=1e-5)


def test_a_batch_without_negatives(values: dict[str, Tensor]) -> None:
    """The last batch of an epoch may be small."""
    loss = sorted_contrastive_loss(values["hash"][:2], values["latents"][:2], positives=2)
    assert loss == 0


def test_settings_reach_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 20, generator=generator)
    method = nsh(positives=3, temperature=0.7, sort_temperature=0.2, quantization_weight=0.5)
    losses = method.feature_losses(*features)
    both = features.flatten(0, 1)
    hashes, latents = method.encode_features(both), F.normalize(method.latent(both), dim=1)
    assert latents.shape == (12, 1024)
    expected = sorted_contrastive_loss(hashes, latents, 3, 0.7, 0.2)
    torch.testing.assert_close(losses["contrastive"], expected)
    torch.testing.assert_close(losses["loss"], expected + 0.5 * losses["quantization"])
