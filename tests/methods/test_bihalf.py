"""BiHalf against the values of its published code."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hashbench import Backbone, create_method
from hashbench_methods.bihalf import BiHalf, bi_half, similarity_preserving_loss

FORWARD = {"rtol": 1e-4, "atol": 1e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}


def linear(values: dict[str, Tensor]) -> nn.Linear:
    fc = nn.Linear(30, 12)
    fc.load_state_dict({part: values[f"fc_{part}"] for part in ("weight", "bias")})
    return fc


def test_a_training_step(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("bihalf_batch10")
    fc = linear(values)
    hashes = fc(values["features"])
    hashes.retain_grad()
    codes = bi_half(hashes, gamma=float(values["gamma"]))
    loss = similarity_preserving_loss(codes, values["features"])
    loss.backward()
    torch.testing.assert_close(hashes.detach(), values["hash"], **FORWARD)
    torch.testing.assert_close(codes.detach(), values["code"], **FORWARD)
    torch.testing.assert_close(loss.detach(), values["loss"], **FORWARD)
    torch.testing.assert_close(hashes.grad, values["grad_hash"], **BACKWARD)
    torch.testing.assert_close(fc.weight.grad, values["grad_fc_weight"], **BACKWARD)


def test_the_method_takes_the_same_step(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("bihalf_batch10")
    method = create_method("bihalf", Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 30)), 4), 12)
    assert isinstance(method, BiHalf)
    method.fc = linear(values)
    losses = method.feature_losses(values["features"])
    losses["loss"].backward()
    torch.testing.assert_close(losses["loss"].detach(), values["loss"], **FORWARD)
    torch.testing.assert_close(method.fc.weight.grad, values["grad_fc_weight"], **BACKWARD)


def test_an_odd_batch(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("bihalf_batch11")
    fc = linear(values)
    hashes = fc(values["features"])
    hashes.retain_grad()
    codes = bi_half(hashes)
    loss = (codes * torch.linspace(-1, 1, 12)).sum()
    loss.backward()
    torch.testing.assert_close(codes.detach(), values["code"], **FORWARD)
    torch.testing.assert_close(loss.detach(), values["loss"], **FORWARD)
    torch.testing.assert_close(hashes.grad, values["grad_hash"], **BACKWARD)
    torch.testing.assert_close(fc.weight.grad, values["grad_fc_weight"], **BACKWARD)
    even = similarity_preserving_loss(codes[:10], values["features"][:10])
    torch.testing.assert_close(similarity_preserving_loss(codes, values["features"]), even)


@given(rows=st.integers(2, 9), seed=st.integers(0, 99), ties=st.booleans())
def test_each_bit_halves_the_batch_by_value(rows: int, seed: int, ties: bool) -> None:
    values = torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed))
    if ties:
        values = values.round()
    codes = bi_half(values)
    assert (codes == 1).sum(0).tolist() == [rows // 2] * 5
    assert (codes == -1).sum(0).tolist() == [rows - rows // 2] * 5
    for bit in range(5):
        assert values[codes[:, bit] == 1, bit].min() >= values[codes[:, bit] == -1, bit].max()


def test_of_equal_values_the_earlier_is_the_larger() -> None:
    assert bi_half(torch.zeros(5, 1)).flatten().tolist() == [1, 1, -1, -1, -1]


def test_the_layer_takes_no_part_in_encoding() -> None:
    """With the layer, a single image would be −1 in every bit, and codes would depend on the batch."""
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 20)), image_size=4)
    method = create_method("bihalf", backbone, 16)
    assert isinstance(method, BiHalf)
    assert method.views == 1
    images = torch.randn(9, 3, 4, 4)
    with torch.no_grad():
        signs = method.codes(method.encode(images)).to_signs()  # type: ignore[union-attr]
        alone = [method.codes(method.encode(image[None])).to_signs() for image in images]  # type: ignore[union-attr]
        np.testing.assert_array_equal(np.concatenate(alone), signs)
        np.testing.assert_array_equal(signs, torch.where(method.fc(backbone.pooled(images)) >= 0, 1, -1))
        assert set(method.training_losses(images)) == {"loss"}


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_gamma_pulls_values_to_their_codes(gamma: float) -> None:
    values = torch.randn(4, 3).requires_grad_()
    codes = bi_half(values, gamma)
    (codes * 0).sum().backward()
    torch.testing.assert_close(values.grad, gamma * (values - codes).detach() / 12)


def test_gamma_reaches_the_loss() -> None:
    """The codes do not depend on gamma, so gradients are linear in it."""
    images = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 20)), image_size=4)
    fc = nn.Linear(20, 8)
    gradients = []
    for gamma in (0.0, 1.0, 5.0):
        method = create_method("bihalf", backbone, 8, gamma=gamma)
        method.fc = fc
        (gradient,) = torch.autograd.grad(method.training_losses(images)["loss"], fc.bias)
        gradients.append(gradient)
    without, once, five_times = gradients
    torch.testing.assert_close(five_times - without, 5 * (once - without))
    assert not torch.allclose(once, without)
