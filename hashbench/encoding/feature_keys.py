"""What pooled features depend on, as keys: network and settings, images, libraries, code and machine."""

from __future__ import annotations

import hashlib
import json
import os

import torch

from hashbench.backbones import Backbone
from hashbench.config import RunConfig
from hashbench.data.packing import PackedImages
from hashbench.images.image_sets import ArrayImages, FileImages, Images
from hashbench.runtime import environment
from hashbench.sources import core_modules, is_within

# Where the layers of a network come from whose code has a version; of others an edit would not be seen.
_VERSIONED = ("torch", "torchvision", "timm", "hashbench")

# What of hashbench makes pixels, and features of them: folders and modules.
_SOURCES = ("images", "encoding", "backbones.py", "depthwise.py", "data/packing.py")

# What of the machine rounds in its own way, by device.
_HARDWARE = {"cpu": ("processor", "threads"), "cuda": ("gpu", "cuda", "cudnn")}


def network_key(backbone: Backbone, config: RunConfig) -> str:
    """Hash of a network, all its weights, and the settings that features depend on."""
    settings = config.model_dump_json(include={"backbone", "images", "device"})
    digest = hashlib.sha256(f"{settings} {backbone}".encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def content_key(images: Images) -> str | None:
    """Hash of ids and content of images, wherever they lie.

    Pixels are read where they are in memory. Of files it is sizes and times of change, in nanoseconds, that
    stand for the content: a change that keeps both would not be seen.

    Returns:
        None, if the content is not known: a file is not there, or the images are of a kind of their own.
    """
    facts: list[object]
    try:
        # Not isinstance: a subclass may show other pixels.
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
    """The name of features on disk, where they outlive code, libraries and machine: 32 hexadecimal digits.

    Args:
        network: From `network_key`.
        content: From `content_key`.
        config: The run.
    """
    machine = environment.describe(config.device)
    facts = {
        "network": network,
        "content": content,
        "libraries": environment.library_versions(),
        "hardware": {name: machine[name] for name in _HARDWARE[config.device]},
        "matmul": torch.get_float32_matmul_precision(),
        "code": {
            path: hashlib.sha256(file.read_bytes()).hexdigest()
            for path, file in core_modules().items()
            if is_within(path, _SOURCES)
        },
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def has_versions(backbone: Backbone) -> bool:
    """Whether every layer of a network is of a library whose version `disk_key` knows."""
    return all(type(module).__module__.split(".")[0] in _VERSIONED for module in backbone.modules())
