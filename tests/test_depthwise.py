"""Tests of depthwise convolutions, which are compared with torch's."""

import pytest
import torch
from torch import Tensor, nn

from hashbench import create_backbone
from hashbench.depthwise import DepthwiseConv2d


def results(convolution: nn.Conv2d, images: Tensor) -> list[Tensor]:
    """Return the output and the gradients in input, weights and bias of a weighted sum of the output."""
    images = images.clone().requires_grad_()
    output = convolution(images)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return [
        output.detach(),
        *torch.autograd.grad((output * weights).sum(), [images, *convolution.parameters()]),
    ]


@pytest.mark.parametrize("size", [(2, 2), (3, 3), (1, 4), (1, 1), (7, 7)])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (5, {"padding": 2}),
        (3, {"padding": 1, "stride": 2}),
        (2, {"padding": 1, "bias": True}),
        (3, {"padding": 2, "dilation": 2}),
        ((1, 3), {"padding": (0, 1)}),
        (3, {"padding": "same"}),
        (3, {"padding": 1, "padding_mode": "reflect"}),
    ],
)
def test_the_product_equals_the_convolution(
    size: tuple[int, int], kernel: int, options: dict[str, object]
) -> None:
    if options.get("padding_mode") and min(size) < 2:
        pytest.skip("nothing to reflect")
    torch.manual_seed(0)
    options = {"bias": False, **options}
    convolution = nn.Conv2d(6, 6, kernel, groups=6, **options)  # type: ignore[arg-type]
    product = DepthwiseConv2d(6, 6, kernel, groups=6, **options)  # type: ignore[arg-type]
    product.load_state_dict(convolution.state_dict())
    images = torch.randn(4, 6, *size)
    torch.testing.assert_close(results(product, images), results(convolution, images))
    with torch.no_grad():
        assert torch.equal(product(images), convolution(images))


def test_the_built_in_network_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = create_backbone("efficientnet_lite0", image_size=48).eval()
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))

    def step() -> list[Tensor]:
        tokens = backbone.tokens(images)
        return [tokens.detach(), *torch.autograd.grad(tokens.square().sum(), list(backbone.parameters()))]

    calls = []
    original = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: calls.append(self) or original(self, x))
    by_products = step()
    depthwise = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    replaced = set(depthwise) - set(calls)
    assert len(replaced) >= 6
    monkeypatch.setattr("hashbench.depthwise.MAX_CELL_PAIRS", 0)
    for product, convolution in zip(by_products, step(), strict=True):  # rounding adds up over 50 layers
        assert (product - convolution).norm() <= 1e-3 * convolution.norm()
