"""The contract of methods, checked for every built-in method."""

from functools import cache

import pytest

from hashbench import registry
from hashbench.testing import CHECKS, MethodUnderTest

METHODS = [entry.name for entry in registry.entries("method").values() if entry.origin == registry.BUILT_IN]

subject = cache(MethodUnderTest)  # shared by the checks of a method


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_contract(method: str, check: str) -> None:
    CHECKS[check](subject(method))
