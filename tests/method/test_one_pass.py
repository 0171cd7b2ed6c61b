"""Tests of one pass of a network over all views, which only a GPU makes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hashbench import Backbone, create_backbone
from hashbench.method.one_pass import of_views

VIEWS = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()


def timm_model(name: str, **options: bool) -> Backbone:
    return create_backbone(name, image_size=64, pretrained=False, **options)


def frozen() -> Backbone:
    backbone = timm_model("test_vit")
    backbone.freeze()
    return backbone


def untracked() -> Backbone:
    """Return a backbone whose batch norm has no stored statistics."""
    network = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4, track_running_stats=False))
    return Backbone(network, 64).eval()


@pytest.mark.parametrize(
    ("create", "passes"),
    [
        (lambda: timm_model("test_vit"), 1),
        (lambda: timm_model("test_resnet"), 2),  # its batch norm sees the statistics of a view
        (lambda: timm_model("test_resnet", freeze_batch_norm=True), 1),
        (frozen, 2),
        (untracked, 2),
    ],
)
def test_one_pass_gives_the_same_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, create: Callable[[], Backbone], passes: int
) -> None:
    backbone = create()
    head = nn.Parameter(torch.ones(()))
    sizes = []

    def tokens(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return backbone.tokens(images) * head

    def values_and_gradients() -> list[Tensor]:
        weights = [head, *backbone.parameters()]
        backbone.zero_grad()
        head.grad = None
        one, other = of_views(tokens, VIEWS, backbone)
        (one.detach() * one.relu_() + other.sin_()).sum().backward()  # in place, as a method may work
        return [one, other, *(weight.grad for weight in weights if weight.grad is not None)]

    expected = values_and_gradients()
    assert sizes == [3, 3]
    monkeypatch.setattr("hashbench.method.one_pass._DEVICES", {"cpu"})
    sizes.clear()
    torch.testing.assert_close(values_and_gradients(), expected, rtol=1e-4, atol=1e-4)
    assert sizes == [6 // passes] * passes
