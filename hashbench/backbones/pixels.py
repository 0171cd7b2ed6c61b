"""Settings that follow the backbone: image size, and mean and standard deviation of the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hashbench.backbones.file_weights import checked_file
from hashbench.backbones.presets import PRESETS, full_name, pixel_statistics
from hashbench.config import RunConfig
from hashbench.recipe import merge
from hashbench.runtime.files import sha256_of

PRETRAINED = "pretrained"


def with_backbone(recipe: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Merge the settings of a recipe and of the user, and complete those that follow the backbone.

    A preset other than the recipe's network brings its image size. The mean and the standard deviation are
    those of the weights unless a setting has numbers, and a file of weights is hashed.

    Raises:
        UsageError: The file of weights cannot be used.
    """
    wanted = _section(chosen, "backbone").get("name")
    recipe, chosen = _with_full_name(recipe), _with_full_name(chosen)
    own = _section(recipe, "backbone").get("name")
    if isinstance(wanted, str) and wanted in PRESETS and full_name(wanted) != own:
        images = {key: value for key, value in _section(recipe, "images").items() if key != "resize"}
        recipe["images"] = {**images, "size": PRESETS[wanted].size}
    merged = merge(recipe, chosen)
    backbone, images = _section(merged, "backbone"), merged.get("images", {})
    if isinstance(backbone.get("name"), str) and isinstance(images, Mapping):
        statistics = dict(zip(("mean", "std"), pixel_statistics(backbone["name"]), strict=True))
        followed = {key: own for key, own in statistics.items() if images.get(key, PRETRAINED) == PRETRAINED}
        merged["images"] = {**images, **followed}
    if isinstance(file := backbone.get("weights"), str):
        sha256 = backbone.get("weights_sha256")
        path = checked_file(str(backbone.get("name")), Path(file), sha256)
        merged["backbone"] = {**backbone, "weights_sha256": sha256 or sha256_of(path)}
    return merged


def pixel_note(config: RunConfig) -> str | None:
    """Describe how the pixels are normalized if not as the weights were trained; None if they are."""
    own, used = pixel_statistics(config.backbone.name), (config.images.mean, config.images.std)
    if used == own or not config.backbone.pretrained:
        return None
    (mean, std), (own_mean, own_std) = (
        [", ".join(f"{value:.3g}" for value in values) for values in pair] for pair in (used, own)
    )
    return (
        f"pixels are normalized by the mean ({mean}) and std ({std}) that the settings say; the weights of "
        f"{config.backbone.name} were trained with ({own_mean}) and ({own_std}), which "
        "--set images.mean=pretrained --set images.std=pretrained uses"
    )


def _with_full_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose backbone has its full name, so that those of one network are merged."""
    backbone = _section(settings, "backbone")
    name = backbone.get("name")
    if not isinstance(name, str):
        return dict(settings)
    return {**settings, "backbone": {**backbone, "name": full_name(name)}}


def _section(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, dict) else {}
