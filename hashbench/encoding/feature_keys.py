"""Cache keys of pooled features: hashes of network, settings, images, libraries, code and machine."""

from __future__ import annotations

import hashlib
import json
import os

import torch

from hashbench.backbones import Backbone
from hashbench.config import RunConfig
from hashbench.data.packing import PackedImages
from hashbench.images.image_sets import ArrayImages, FileImages, Images
from hashbench.run_id_sources import core_modules, is_within
from hashbench.runtime import environment

# Packages whose version stands for their code; edits of layers from elsewhere would go unnoticed.
_VERSIONED = ("torch", "torchvision", "timm", "hashbench")

# Folders and modules of hashbench that pixels and features depend on.
_SOURCES = ("images", "encoding", "backbones", "depthwise.py", "data/packing.py")

# Properties of the machine that rounding depends on, by device.
_HARDWARE = {"cpu": ("processor", "threads"), "cuda": ("gpu", "cuda", "cudnn")}


def network_key(backbone: Backbone, config: RunConfig) -> str:
    """Return a hash of a network, its weights, and the settings that features depend on."""
    settings = config.model_dump_json(include={"backbone", "images", "device"})
    digest = hashlib.sha256(f"{settings} {config.evaluation.precision_encode} {backbone}".encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def content_key(images: Images) -> str | None:
    """Return a hash of the ids and the content of images, which does not depend on their folder.

    The size and the modification time of a file, in nanoseconds, stand for its content: a change that keeps
    both goes unnoticed.

    Returns:
        None if a file is missing or the class of the images is unknown.
    """
    facts: list[object]
    try:
        # Not isinstance, since a subclass may return other pixels.
        if type(images) is ArrayImages:
            facts = ["array", images[0].size, images.digest()]
        elif type(images) is FileImages:
            states = [os.stat(path) for path in images.paths]  # noqa: PTH116 - these are strings
            files = [(state.st_size, state.st_mtime_ns) for state in states]
            facts = ["files", images.exif, images.truncated, images.ids, files]
        elif type(images) is PackedImages:
            state = images.file.stat()
            facts = ["packed", images.file.name, state.st_size, state.st_mtime_ns]
            facts += [images.exif, images.truncated, images.ids, images.spans.tolist()]
        else:
            return None
    except OSError:
        return None
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def disk_key(network: str, content: str, config: RunConfig) -> str:
    """Return the key of features on disk, 32 hexadecimal digits, which covers libraries, code and machine."""
    machine = environment.describe(config.device)
    facts = {
        "network": network,
        "content": content,
        "libraries": environment.library_versions(),
        "hardware": {name: machine[name] for name in _HARDWARE[config.device]},
        "code": {
            path: hashlib.sha256(file.read_bytes()).hexdigest()
            for path, file in core_modules().items()
            if is_within(path, _SOURCES)
        },
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def has_versions(backbone: Backbone) -> bool:
    """Return True if all layers of a network come from packages whose version is in `disk_key`."""
    return all(type(module).__module__.split(".")[0] in _VERSIONED for module in backbone.modules())
