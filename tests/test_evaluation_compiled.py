"""Compiling where nothing can be kept on disk."""

import pytest
from numba.core import caching

from hashbench.evaluation.compiled import compiled


def test_compiles_without_a_place_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching._CacheImpl, "_locator_classes", [])
    assert compiled(lambda x: x + 1)(2) == 3
