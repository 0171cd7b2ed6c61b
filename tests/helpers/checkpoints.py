"""Checkpoints for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from hashbench.training.checkpoints import save_checkpoint


def saved(folder: Path, *steps: int) -> list[Path]:
    """Save checkpoints of these steps and return their files."""
    for step in steps:
        save_checkpoint(folder, step, {"step": step, "weights": torch.full((1000,), step)})
    return sorted(folder.iterdir())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
