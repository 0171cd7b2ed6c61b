"""Weights of a timm model from a file of the user."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import nn

from hashbench.backbones.built_in import BUILT_IN, CIFAR_RESNET
from hashbench.errors import HashbenchError, UsageError
from hashbench.runtime.files import sha256_of


def checked_file(name: str, file: Path, sha256: str | None) -> Path:
    """Return a file of weights, if it is of a readable format and its content has the given hash.

    Raises:
        UsageError: The file does not exist, is of another format or has another hash, or the backbone has
            weights of its own.
    """
    if name in (BUILT_IN, CIFAR_RESNET):
        raise UsageError(f"weights={file}: {name} takes no file; choose a timm model")
    if file.suffix not in (".safetensors", ".npz"):
        raise UsageError(f"weights={file}: expected FILE.safetensors or FILE.npz; convert it first")
    if not file.is_file():
        raise UsageError(f"weights={file}: there is no such file")
    if sha256 is not None and (found := sha256_of(file)) != sha256:
        raise UsageError(f"weights={file}: expected the content with the SHA-256 {sha256}, got {found}")
    return file


def load_file_weights(name: str, file: Path, **arguments: Any) -> nn.Module:
    """Build a timm model with the weights of a file.

    Raises:
        HashbenchError: The file is damaged, or its weights are those of another model.
    """
    source = {"file": str(file), "custom_load": file.suffix == ".npz"}
    try:
        network = _build(name, pretrained=True, pretrained_cfg_overlay=source, **arguments)
        missing = _equal_weights(_build(name, pretrained=False, **arguments), network)
        reason = f"it has no weights for {missing}" if missing else None
    except (AssertionError, AttributeError, EOFError, KeyError, OSError, RuntimeError, ValueError,
            SafetensorError, zipfile.BadZipFile) as error:  # fmt: skip
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    if reason is not None:
        raise HashbenchError(
            f"weights={file} cannot be loaded into {name} ({reason}); choose the backbone of the file"
        )
    return network


def _build(name: str, **arguments: Any) -> nn.Module:
    """Build a model, with the same random numbers each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = timm.create_model(name, **arguments)
        return network


def _equal_weights(one: nn.Module, other: nn.Module) -> str | None:
    """Return the name of the first random tensor that two models share; timm ignores what a file lacks."""
    pairs = zip(one.named_parameters(), other.parameters(), strict=True)
    return next((name for (name, a), b in pairs if (a != a.flatten()[0]).any() and torch.equal(a, b)), None)
