"""CroVCA against loops over its formulas."""

import pytest
import torch
from torch import Tensor, nn

from hashbench import Backbone, create_method
from hashbench_methods.crovca import CroVCA, alignment_loss, coding_rate


def crovca(**settings: float) -> CroVCA:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 20)), image_size=4)
    method = create_method("crovca", backbone, 8, **settings)
    assert isinstance(method, CroVCA)
    return method


def logits(rows: int = 7, bits: int = 5) -> Tensor:
    return torch.randn(2, rows, bits, generator=torch.Generator().manual_seed(0))


def test_alignment_bit_by_bit() -> None:
    views = logits().requires_grad_()
    total = torch.zeros(())
    for view, other in (views, views.flip(0)):
        for row, target in zip(view, other, strict=True):
            for value, bit in zip(row, target, strict=True):
                probability = torch.sigmoid(value)
                total = total - (probability if bit > 0 else 1 - probability).log() / 70
    loss = alignment_loss(*views)
    torch.testing.assert_close(loss, total)
    slopes, expected = (torch.autograd.grad(value, views)[0] for value in (loss, total))
    torch.testing.assert_close(slopes, expected)
    assert alignment_loss(20 * views[0], 20 * views[0]) < alignment_loss(20 * views[0], 20 * views[1])


@pytest.mark.parametrize("rows", [3, 12])
def test_coding_rate_by_singular_values(rows: int) -> None:
    (values, _) = logits(rows)
    units = values / values.norm(dim=1, keepdim=True)
    spectrum = torch.linalg.svdvals(units).square()
    expected = (1 + 5 / (rows * 0.2) * spectrum).log().sum() / 2 * (5 + rows) / (5 * rows)
    torch.testing.assert_close(coding_rate(values, 0.2), expected)
    torch.testing.assert_close(coding_rate(3 * values, 0.2), expected)


def test_coding_rate_is_largest_for_codes_that_fill_the_space() -> None:
    codes = torch.cat([torch.eye(8), -torch.eye(8)])
    collapsed = torch.ones(16, 8)
    assert coding_rate(codes) > coding_rate(logits(16, 8)[0]) > coding_rate(collapsed) > 0


def test_losses_of_the_method() -> None:
    method = crovca(rate_weight=0.7, distortion=0.3)
    views = torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(1))
    losses = method.feature_losses(*views)
    logits1, logits2 = (method.head(view) for view in views)
    rate = (coding_rate(logits1, 0.3) + coding_rate(logits2, 0.3)) / 2
    torch.testing.assert_close(losses["rate"], rate)
    torch.testing.assert_close(losses["alignment"], alignment_loss(logits1, logits2))
    torch.testing.assert_close(losses["loss"], losses["alignment"] - 0.7 * rate)


def test_the_released_head() -> None:
    torch.manual_seed(0)
    head = crovca().head
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Linear", "BatchNorm1d"]
    assert (head[0].weight.shape, head[2].weight.shape) == ((20, 20), (8, 20))
    assert head[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not head[0].bias.any()


def test_images_are_encoded_with_the_statistics_of_the_training() -> None:
    method = crovca()
    views = torch.randn(2, 6, 20) + 3
    method.feature_losses(*views)
    method.eval()
    norm = method.head[3]
    assert norm.num_batches_tracked == 2  # once for each view
    values = method.encode_features(views[0])
    expected = (method.head[:3](views[0]) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(values, expected)
