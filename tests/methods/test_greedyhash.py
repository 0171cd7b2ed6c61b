"""Unsupervised GreedyHash against the values of its published code."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hashbench import Backbone, create_method
from hashbench_methods.greedyhash import GreedyHash, quantization_penalty, similarity_loss

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}
BATCHES = ["greedyhash_u", "greedyhash_u_batch11"]
LOSSES = {
    "alpha0.1": {"penalty_weight": 0.1},
    "alpha1": {"penalty_weight": 1.0},
    "alpha0.1_pow2": {"penalty_weight": 0.1, "power": 2.0},
}


def greedyhash(values: dict[str, Tensor], **settings: float) -> GreedyHash:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 30)), image_size=4)
    method = create_method("greedyhash", backbone, 16, **settings)
    assert isinstance(method, GreedyHash)
    method.fc.load_state_dict({part: values[f"fc_{part}"] for part in ("weight", "bias")})
    return method


@pytest.mark.parametrize("batch", BATCHES)
def test_the_losses(golden: Callable[[str], dict[str, Tensor]], batch: str) -> None:
    values = golden(batch)
    codes = values["code"].requires_grad_()
    loss = similarity_loss(codes, values["features"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), values["mse_loss"], **FORWARD)
    torch.testing.assert_close(codes.grad, values["grad_code"], **BACKWARD)
    for power, key in ((float(values["power"]), "quan_loss"), (2.0, "quan_loss_pow2")):
        torch.testing.assert_close(quantization_penalty(values["hash"], power), values[key], **FORWARD)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_the_method_takes_the_same_step(
    golden: Callable[[str], dict[str, Tensor]], batch: str, name: str
) -> None:
    values = golden(batch)
    method = greedyhash(values, **LOSSES[name])
    hashes: list[Tensor] = []
    method.fc.register_forward_hook(lambda _layer, _inputs, output: hashes.append(output))
    losses = method.feature_losses(values["features"])
    hashes[0].retain_grad()
    losses["loss"].backward()
    torch.testing.assert_close(hashes[0].detach(), values["hash"], **FORWARD)
    torch.testing.assert_close(losses["loss"].detach(), values[f"loss_{name}"], **FORWARD)
    torch.testing.assert_close(losses["similarity"].detach(), values["mse_loss"], **FORWARD)
    torch.testing.assert_close(hashes[0].grad, values[f"grad_hash_{name}"], **BACKWARD)
    torch.testing.assert_close(method.fc.weight.grad, values[f"grad_fc_weight_{name}"], **BACKWARD)
    torch.testing.assert_close(method.fc.bias.grad, values[f"grad_fc_bias_{name}"], **BACKWARD)


def test_encoding_takes_the_sign(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("greedyhash_u")
    method = greedyhash(values)
    with torch.no_grad():
        signs = method.codes(method.encode_features(values["features"])).to_signs()  # type: ignore[union-attr]
    assert (signs == values["code"].numpy()).all()


def test_centered_features_have_mean_0(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("greedyhash_u")

    class Training:
        def features(self) -> Tensor:
            return values["features"] + 7

    raw, centered = greedyhash(values), greedyhash(values, center=True)
    for method in (raw, centered):
        method.prepare(Training())
    features = values["features"] - values["features"].mean(0)
    expected = raw.feature_losses(features)["loss"]
    torch.testing.assert_close(centered.feature_losses(values["features"] + 7)["loss"], expected)
    torch.testing.assert_close(
        centered.encode_features(values["features"] + 7), raw.encode_features(features)
    )
