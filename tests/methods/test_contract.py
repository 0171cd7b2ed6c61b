"""Every method that comes with hashbench keeps the contract."""

from functools import cache

import pytest

from hashbench import registry
from hashbench.testing import CHECKS, MethodUnderTest

METHODS = [entry.name for entry in registry.entries("method").values() if entry.origin == registry.BUILT_IN]

subject = cache(MethodUnderTest)  # what one method's checks share is made once


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_contract(method: str, check: str) -> None:
    CHECKS[check](subject(method))
