"""Tests of one pass of a network over all views, which only a GPU makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hashbench import Backbone, create_backbone
from hashbench.method.one_pass import of_views

VIEWS = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()


def untracked() -> Backbone:
    """Return a backbone whose batch norm has no stored statistics."""
    return Backbone(nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4, track_running_stats=False)), 64)


@pytest.mark.parametrize(
    ("name", "options", "passes"),
    [
        ("test_vit", {}, 1),
        ("test_resnet", {}, 2),  # its batch norm sees the statistics of a view
        ("test_resnet", {"freeze_batch_norm": True}, 1),
        ("frozen", {}, 2),
        ("untracked", {}, 2),
    ],
)
def test_one_pass_gives_the_same_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], passes: int
) -> None:
    if name == "untracked":
        backbone = untracked().eval()
    else:
        network = "test_vit" if name == "frozen" else name
        backbone = create_backbone(network, image_size=64, pretrained=False, **options)
    if name == "frozen":
        backbone.freeze()
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
