"""The contract of methods, checked for every built-in method."""

from functools import cache

import pytest

from hashbench import registry
from hashbench.testing import CHECKS, MethodUnderTest

METHODS = [entry.name for entry in registry.entries("method").values() if entry.origin == registry.BUILT_IN]

FASTER = {"imh": ("base_points=30",)}  # t-SNE of all images takes seconds


@cache
def subject(method: str) -> MethodUnderTest:
    """Return the method, shared by its checks."""
    return MethodUnderTest(method, FASTER.get(method, ()))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_contract(method: str, check: str) -> None:
    CHECKS[check](subject(method))
