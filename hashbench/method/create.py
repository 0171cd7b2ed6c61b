"""Create methods by name."""

from __future__ import annotations

from typing import Any

from hashbench import registry
from hashbench.backbones import Backbone
from hashbench.method.base import HashMethod
from hashbench.recipe import check_settings


def create_method(name: str, backbone: Backbone, bits: int, **hyperparameters: Any) -> HashMethod:
    """Create an untrained method by name.

    Args:
        name: Name of a registered method.
        backbone: From `create_backbone`, or any `Backbone`.
        bits: Code length.
        **hyperparameters: Settings of the method.

    Raises:
        UsageError: The method or a hyperparameter is unknown, or a value is invalid.
    """
    cls: type[HashMethod] = registry.find("method", name).load()
    return cls(backbone, bits, check_settings("hyperparameter", cls.Hyperparameters, hyperparameters))
