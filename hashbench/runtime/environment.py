"""What a run ran on: versions and hardware, for the record."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Libraries whose version can change a number: the run id covers them.
LIBRARIES = (
    "torch", "torchvision", "timm", "accelerate", "numpy", "scipy", "scikit-learn", "numba", "pillow",
)  # fmt: skip

# What `describe` and a record say beside versions of libraries; the run id covers none of it but the source.
_MACHINE = {
    "python",
    "platform",
    "processor",
    "threads",
    "threads_before_stop",
    "gpu",
    "cuda",
    "cudnn",
    "source",
}


def library_versions(*more: str) -> dict[str, str]:
    """Versions of hashbench and of the libraries whose version can change a number, and of `more`."""
    return {name: version(name) for name in ("hashbench", *LIBRARIES, *more)}


def recorded_versions(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of libraries that a record's `environment` names."""
    return {name: version for name, version in environment.items() if name not in _MACHINE}


def describe(device: str, *more: str) -> dict[str, Any]:
    """Versions, those of `more` libraries among them, processor and, if the run is on one, GPU."""
    import torch  # takes seconds, and readers of records do without it

    facts: dict[str, Any] = {
        **library_versions(*more),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
