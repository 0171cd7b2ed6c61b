"""Configurations of runs for tests."""

from __future__ import annotations

from typing import Any

from hashbench.config import RunConfig


def run_config(*changes: dict[str, Any], **settings: Any) -> RunConfig:
    """Return the configuration of a small run on a CPU, updated section by section."""
    config: dict[str, Any] = {
        "method": "wch", "dataset": "none", "protocol": "none", "bits": 12, "seed": 0, "device": "cpu",
        "backbone": {"name": "test_resnet", "pretrained": False}, "images": {"size": 32},
    }  # fmt: skip
    for layer in (settings, *changes):
        for name, value in layer.items():
            config[name] = {**config.get(name, {}), **value} if isinstance(value, dict) else value
    return RunConfig(**config)
