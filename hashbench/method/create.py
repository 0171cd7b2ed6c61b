"""Build a method by its name."""

from __future__ import annotations

from typing import Any

from hashbench import registry
from hashbench.backbones import Backbone
from hashbench.method.base import HashMethod
from hashbench.recipe import check_settings


def create_method(name: str, backbone: Backbone, bits: int, **hyperparameters: Any) -> HashMethod:
    """Build a method by name, untrained.

    Args:
        name: A registered method.
        backbone: From `create_backbone`, or any `Backbone`.
        bits: Length of the codes.
        **hyperparameters: The method's own settings.

    Raises:
        UsageError: No such method, or a hyperparameter that does not fit.
    """
    cls: type[HashMethod] = registry.find("method", name).load()
    return cls(backbone, bits, check_settings("hyperparameter", cls.Hyperparameters, hyperparameters))
