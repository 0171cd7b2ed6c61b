"""The environment of a run, for its record: versions of libraries, and hardware."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Libraries whose version can change a number; their versions are part of the run id.
LIBRARIES = (
    "torch", "torchvision", "timm", "accelerate", "numpy", "scipy", "scikit-learn", "numba", "pillow",
)  # fmt: skip

# Other keys of a record's environment; of these, only the source is part of the run id.
_MACHINE = {
    "python", "platform", "processor", "threads", "threads_before_stop", "gpu", "cuda", "cudnn", "source",
    "plugin_files", "weights_licence", "weights_sha256",
}  # fmt: skip


def library_versions(*more: str) -> dict[str, str]:
    """Return the versions of hashbench, of the libraries that can change a number, and of `more`."""
    return {name: version(name) for name in ("hashbench", *LIBRARIES, *more)}


def recorded_versions(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of libraries from the environment of a record."""
    return {name: version for name, version in environment.items() if name not in _MACHINE}


def describe(device: str, *more: str) -> dict[str, Any]:
    """Return the versions, including those of `more` libraries, the processor, and the GPU if one is used."""
    import torch  # takes seconds, and reading records does not need it

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
