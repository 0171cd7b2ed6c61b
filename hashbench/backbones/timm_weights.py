"""Pretrained weights of timm models: in the local cache, or to be downloaded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import timm
import torch

from hashbench.backbones.built_in import BUILT_IN, CIFAR_RESNET, built_in_weights
from hashbench.errors import HashbenchError

_ANSWER_S = 10.0  # seconds in which the server of the weights must answer


def require_weights(name: str) -> None:
    """Check that the pretrained weights of a backbone are installed or cached, or can be downloaded.

    Raises:
        HashbenchError: The server of the weights cannot be reached.
    """
    if name not in (BUILT_IN, CIFAR_RESNET) and timm.is_model(name):
        pretrained_cfg = timm.get_pretrained_cfg(name)
        try:
            require_reachable(pretrained_cfg)
        except Exception as error:
            raise weights_error(name, pretrained_cfg, error) from error


def weights_error(name: str, pretrained_cfg: Any, error: Exception) -> HashbenchError:
    """Return the error for weights that could not be loaded, which names the cause and a remedy."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    file = None if isinstance(error, OSError) else cached_weights(pretrained_cfg)
    if file is not None:
        return HashbenchError(
            f"the weights of {name} in {file} are damaged ({reason}); delete this file, and the next run "
            "downloads it"
        )
    no_home = "home directory" in reason
    remedy = "set $HF_HOME to a folder for them" if no_home else "connect to the network once"
    return HashbenchError(
        f"the weights of {name} could not be loaded ({reason}); {remedy}, or choose --backbone {BUILT_IN}, "
        "whose weights are installed, or --set pretrained=false"
    )


def require_reachable(pretrained_cfg: Any) -> None:
    """Ask once for weights that are not cached, and raise the error if there is no answer.

    Without a network, timm would try the same download again and again for more than a minute.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    if cached_weights(pretrained_cfg) is not None:
        return
    if pretrained_cfg.hf_hub_id:
        url = hf_hub_url(pretrained_cfg.hf_hub_id, pretrained_cfg.hf_hub_filename or "model.safetensors")
        with suppress(EntryNotFoundError):  # the weights are in another file
            get_hf_file_metadata(url, timeout=_ANSWER_S)
    elif pretrained_cfg.url:
        urlopen(Request(pretrained_cfg.url, method="HEAD"), timeout=_ANSWER_S).close()


def cached_weights(pretrained_cfg: Any) -> Path | None:
    """Return the cached file of timm's weights, if there is one."""
    from huggingface_hub import try_to_load_from_cache  # timm's own dependency

    names = [pretrained_cfg.hf_hub_filename or "model.safetensors", "pytorch_model.bin"]
    hub = pretrained_cfg.hf_hub_id
    found = [try_to_load_from_cache(hub, name) for name in names] if hub else []
    paths = [path for path in found if isinstance(path, str)]
    if pretrained_cfg.url:
        paths.append(f"{torch.hub.get_dir()}/checkpoints/{pretrained_cfg.url.rpartition('/')[2]}")
    # The file itself, since the hub would recreate deleted links to it without a download.
    return next((Path(path).resolve() for path in paths if Path(path).is_file()), None)


def weights_file(name: str) -> Path | None:
    """Return the file of a backbone's pretrained weights on this machine; None if it is not here."""
    if name == BUILT_IN:
        with built_in_weights() as path:
            return path
    found = None if name == CIFAR_RESNET else timm.get_pretrained_cfg(name)
    return None if found is None else cached_weights(found)
