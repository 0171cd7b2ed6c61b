"""Short names of backbones, and what their weights were trained with, as timm says."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import timm

from hashbench.backbones.built_in import BUILT_IN, CIFAR_RESNET

SIZE = 224  # pixels, unless a preset says otherwise
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SAME_WEIGHTS = {BUILT_IN: "tf_efficientnet_lite0.in1k"}  # the names of timm


class Preset(NamedTuple):
    """A backbone by a short name.

    Attributes:
        model: Name of the built-in network or of the timm model, with the tag of its weights.
        size: Height and width of the images, in pixels.
    """

    model: str
    size: int = SIZE


PRESETS = {
    "vit-b": Preset("vit_base_patch16_224.orig_in21k"),  # that of the WCH paper
    "dinov2-s": Preset("vit_small_patch14_dinov2.lvd142m"),
    "dinov2-b": Preset("vit_base_patch14_dinov2.lvd142m"),
    "dinov2-l": Preset("vit_large_patch14_dinov2.lvd142m"),
    "dinov3-b": Preset("vit_base_patch16_dinov3.lvd1689m"),
    "clip-b": Preset("vit_base_patch16_clip_224.openai"),
    "siglip2-b": Preset("vit_base_patch16_siglip_224.v2_webli"),
    "vgg16": Preset("vgg16.tv_in1k"),
    "resnet50": Preset("resnet50.tv_in1k"),
    BUILT_IN: Preset(BUILT_IN, 64),
}


def full_name(name: str) -> str:
    """Return the model of a preset; any other name as it is."""
    return PRESETS[name].model if name in PRESETS else name


def weights_config(name: str) -> Any:
    """Return what timm knows about the weights of a backbone; None if it knows nothing."""
    try:
        return timm.get_pretrained_cfg(_SAME_WEIGHTS.get(name, full_name(name)))
    except RuntimeError:  # an unknown tag
        return None


@lru_cache
def pixel_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of the channels that the weights were trained with.

    They are those of ImageNet for a network whose weights have none.
    """
    found = None if name == CIFAR_RESNET else weights_config(name)
    return IMAGENET if found is None or not found.mean else (tuple(found.mean), tuple(found.std))


def licence(name: str) -> str | None:
    """Return the licence of the weights, as timm states it; None if it is not known."""
    found = weights_config(name)
    return found.license if found is not None else None
