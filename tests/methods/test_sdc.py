"""SDC against the values of its published code."""

from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from hashbench import Backbone, create_method
from hashbench_methods.sdc import SDC, calibration_loss, calibration_targets, cosine_quantization_loss

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}
VARIANTS = {
    "": {},
    "_ortho": {"clamp": True},
    "_beta2_5": {"a": 2.0, "b": 5.0},
}


class Identity(nn.Module):
    """A head that returns given values, whatever the features."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, _features: Tensor) -> Tensor:
        return self.values


def sdc(**settings: object) -> SDC:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 24)), image_size=4)
    method = create_method("sdc", backbone, 32, **settings)
    assert isinstance(method, SDC)
    return method


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_losses(golden: Callable[[str], dict[str, Tensor]], variant: str) -> None:
    values, settings = golden("sdc"), VARIANTS[variant]
    targets = calibration_targets(4, **settings)  # type: ignore[arg-type]
    torch.testing.assert_close(targets, values[f"targets{variant}"], **FORWARD)
    hashes = values["hash"].requires_grad_()
    calibration = calibration_loss(hashes, values["features"], **settings)  # type: ignore[arg-type]
    quantization = cosine_quantization_loss(hashes)
    loss = calibration + quantization
    loss.backward()
    torch.testing.assert_close(calibration.detach(), values[f"rec_loss{variant}"], **FORWARD)
    torch.testing.assert_close(quantization.detach(), values["quan_loss"], **FORWARD)
    torch.testing.assert_close(loss.detach(), values[f"loss{variant}"], **FORWARD)
    torch.testing.assert_close(hashes.grad, values[f"grad_hash{variant}"], **BACKWARD)


def test_two_views(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("sdc_two_views")
    method = sdc(clamp=True, contrastive_weight=1.0)
    assert method.views == 2
    method.head = Identity(values["hash"])  # type: ignore[assignment]
    losses = method.feature_losses(*values["features"].chunk(2))
    losses["loss"].backward()
    for name, key in (
        ("calibration", "rec_loss"),
        ("quantization", "quan_loss"),
        ("contrastive", "cont_loss"),
        ("loss", "loss"),
    ):
        torch.testing.assert_close(losses[name].detach(), values[key], **FORWARD)
    torch.testing.assert_close(method.head.values.grad, values["grad_hash"], **BACKWARD)


def test_the_head(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("sdc_head")
    method = sdc()
    assert method.views == 1
    fc1, _, fc2, norm = method.head
    for layer, name in ((fc1, "fc1"), (fc2, "fc2"), (norm, "bn")):
        parts = {part: values[f"{name}_{part}"] for part in ("weight", "bias")}
        layer.load_state_dict({**layer.state_dict(), **parts})
    hashes: list[Tensor] = []
    norm.register_forward_hook(lambda _layer, _inputs, output: hashes.append(output.detach()))
    loss = method.train().feature_losses(values["features"])["loss"]
    loss.backward()
    torch.testing.assert_close(hashes[0], values["hash_train"], **FORWARD)
    torch.testing.assert_close(loss.detach(), values["loss"], **FORWARD)
    torch.testing.assert_close(norm.running_mean, values["running_mean_after"], **FORWARD)
    torch.testing.assert_close(norm.running_var, values["running_var_after"], **FORWARD)
    for name, parameter in (
        ("fc1_weight", fc1.weight),
        ("fc1_bias", fc1.bias),
        ("fc2_weight", fc2.weight),
        ("bn_weight", norm.weight),
        ("bn_bias", norm.bias),
    ):
        torch.testing.assert_close(parameter.grad, values[f"grad_{name}"], **BACKWARD)
    method.eval()
    torch.testing.assert_close(
        method.encode_features(values["features"]).detach(), values["hash_eval"], **FORWARD
    )


def test_targets_are_quantiles() -> None:
    targets = calibration_targets(33, a=2.0, b=5.0)
    expected = [2 * scipy.stats.beta.ppf((2 * j + 1) / 66, 2, 5) - 1 for j in range(33)]
    torch.testing.assert_close(targets, torch.tensor(expected, dtype=torch.float32))
    assert (targets.diff() > 0).all()
    torch.testing.assert_close(calibration_targets(33, 2.0, 5.0, clamp=True), targets.clamp(min=0))


def test_the_order_of_features_gets_the_order_of_targets() -> None:
    """The loss is 0 for similarities that are the targets, in the order of the features."""
    angles = torch.tensor([0.4, 2.0, 1.1])  # of the pairs of features, not sorted
    features = torch.cat([torch.tensor([[1.0, 0.0]] * 3), torch.stack([angles.cos(), angles.sin()], 1)])
    targets = calibration_targets(3).acos()[[2, 0, 1]]
    hashes = torch.cat([torch.tensor([[1.0, 0.0]] * 3), torch.stack([targets.cos(), targets.sin()], 1)])
    odd = torch.tensor([[3.0, 4.0]])
    for rows in ((hashes, features), (torch.cat([hashes, odd]), torch.cat([features, odd]))):
        assert calibration_loss(*rows) < 1e-6
    assert calibration_loss(hashes.roll(1, 0), features) > 0.1


def test_weights_reach_the_loss(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("sdc_two_views")
    method = sdc(beta=(2.0, 5.0), quantization_weight=0.5, contrastive_weight=3.0)
    method.head = Identity(values["hash"])  # type: ignore[assignment]
    losses = method.feature_losses(*values["features"].chunk(2))
    parts = losses["calibration"] + 0.5 * losses["quantization"] + 3 * losses["contrastive"]
    torch.testing.assert_close(losses["loss"], parts)
    rows = torch.cat([values["pair_first"], values["pair_second"]])
    expected = calibration_loss(values["hash"][rows], values["features"][rows], 2.0, 5.0)
    torch.testing.assert_close(losses["calibration"], expected)
