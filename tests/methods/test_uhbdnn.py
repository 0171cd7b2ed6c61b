"""UH-BDNN against the values of its formula, and of the codes of ITQ that it starts from."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hashbench import Backbone, create_method
from hashbench_methods.itq import iterative_quantization
from hashbench_methods.uhbdnn import UHBDNN, uhbdnn_loss, update_targets

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-4}


class Training:
    """Training images with given features."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def features(self) -> Tensor:
        return self.values.clone()


def uhbdnn(features: int, bits: int, **settings: float) -> UHBDNN:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, features)), image_size=4)
    method = create_method("uhbdnn", backbone, bits, **settings)
    assert isinstance(method, UHBDNN)
    return method


def draw(rows: int = 40, features: int = 12) -> Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(0)) + 3


@pytest.mark.parametrize("key", ["", "_b"])
def test_the_loss(golden: Callable[[str], dict[str, Tensor]], key: str) -> None:
    values = golden("uhbdnn")
    hashes = values["hash"].requires_grad_()
    targets = values["targets"][values["batch_index"].long()].sign()
    decoder = values["decoder_weight"], values["decoder_bias"]
    loss = uhbdnn_loss(hashes, targets, values["features"], *decoder, values[f"weights{key}"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), values[f"loss_paper{key}"], **FORWARD)
    torch.testing.assert_close(hashes.grad, values[f"grad_hash_paper{key}"], **BACKWARD)


def test_the_codes_of_itq(
    golden: Callable[[str], dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = golden("uhbdnn_itq_target")
    start = values["rotation_start"].double()
    monkeypatch.setattr("hashbench_methods.itq.method.random_rotation", lambda _size: start)
    components = (values["features"] - values["pca_mean"]).double() @ values["pca_components"].double().T
    rotation = iterative_quantization(components, int(values["iterations"]))
    torch.testing.assert_close(rotation.float(), values["rotation_paper"], **FORWARD)
    rotated = components @ rotation
    codes = rotated.sign()
    torch.testing.assert_close(codes, values["targets_paper"].double())
    error = (codes - rotated).square().sum().float()
    torch.testing.assert_close(error, values["quantization_error_paper"], **FORWARD)


def test_prepare_computes_the_codes_of_itq_and_fits_the_decoder() -> None:
    features = draw()
    method = uhbdnn(12, 4)
    torch.manual_seed(1)
    method.prepare(Training(features))
    itq = create_method("itq", method.backbone, 4)
    torch.manual_seed(1)
    itq.fit(features)  # type: ignore[operator]
    values = itq.encode_features(features)  # type: ignore[operator]
    torch.testing.assert_close(method.targets, torch.where(values >= 0, 1.0, -1.0))
    scaled = (features - features.min(0).values) / (features.max(0).values - features.min(0).values).max()
    residual = scaled - method.decoder(method.targets)
    torch.testing.assert_close(residual.sum(0), torch.zeros(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(method.targets.T @ residual, torch.zeros(4, 12), rtol=0, atol=1e-4)
    torch.testing.assert_close(method.encode_features(features), method.encoder(scaled))


def test_the_codes_are_updated_to_a_minimum() -> None:
    """No change of a single bit lowers the loss; for most images, it is the best code of all."""
    generator = torch.Generator().manual_seed(0)
    features, hashes = torch.randn(20, 12, generator=generator), torch.randn(20, 4, generator=generator)
    decoder = nn.Linear(4, 12)
    with torch.no_grad():
        decoder.weight.copy_(torch.randn(12, 4, generator=generator))

    def cost(codes: Tensor) -> Tensor:
        distance = (hashes - codes).square().sum(1)
        return ((features - decoder(codes)).square().sum(1) + 0.3 * distance).detach()

    codes = update_targets(torch.ones(20, 4), hashes, features, decoder, 0.3, sweeps=10)
    assert set(codes.unique().tolist()) == {-1, 1}
    for bit in range(4):
        flipped = codes.clone()
        flipped[:, bit] *= -1
        assert (cost(codes) <= cost(flipped)).all()
    every = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)))
    best = torch.stack([cost(code.expand(20, 4)) for code in every]).min(0).values
    assert (cost(codes) <= best + 1e-4).float().mean() > 0.5
    start = codes.roll(1, 0)
    assert (cost(update_targets(start, hashes, features, decoder, 0.3, sweeps=1)) <= cost(start)).all()
    assert update_targets(start, hashes, features, decoder, 0.3, sweeps=0).equal(start)


@pytest.mark.parametrize("sweeps", [0, 10])
def test_the_method_computes_the_same_loss(sweeps: int) -> None:
    features, rows = draw(), torch.tensor([7, 3, 30, 12])
    method = uhbdnn(12, 4, sweeps=sweeps, code_weight=0.5, independence_weight=2, balance_weight=0.25)
    method.prepare(Training(features))
    loss = method.feature_losses(features[rows], indices=rows)["loss"]
    hashes = method.encode_features(features[rows])
    scaled = (features[rows] - method.least) / method.range
    targets = update_targets(method.targets[rows], hashes, scaled, method.decoder, 0.5, sweeps)
    decoder = method.decoder.weight, method.decoder.bias
    expected = uhbdnn_loss(hashes, targets, scaled, *decoder, torch.tensor([0.5, 2.0, 0.25]))
    torch.testing.assert_close(loss, expected)
    assert "targets" not in method.state_dict()
