"""Mutations are deterministic and change their input."""

from __future__ import annotations

from fuzz.mutation import mutations


def test_the_same_seed_does_the_same_damage() -> None:
    originals = [b"a line of text\n" * 20, b"{}"]
    damaged = list(mutations(originals, 200, seed=3))
    assert damaged == list(mutations(originals, 200, seed=3))
    assert damaged != list(mutations(originals, 200, seed=4))
    assert sum(content not in originals for content in damaged) > 150
