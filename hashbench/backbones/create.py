"""Backbones by name, with their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from torch import nn

from hashbench.backbones.backbone import Backbone, Pool
from hashbench.backbones.built_in import BUILT_IN, CIFAR_RESNET, efficientnet_lite0, resnet18_cifar
from hashbench.backbones.file_weights import checked_file, load_file_weights
from hashbench.backbones.presets import PRESETS, full_name
from hashbench.backbones.timm_weights import require_reachable, weights_error
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.runtime.torch_errors import ran_out_of_memory


def create_backbone(
    name: str,
    *,
    image_size: int,
    pretrained: bool = True,
    stage: int | None = None,
    freeze_batch_norm: bool = False,
    pool: Pool = "head",
    weights: str | Path | None = None,
    weights_sha256: str | None = None,
    **options: Any,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: `"efficientnet_lite0"`, with ImageNet weights that are installed with hashbench;
            `"resnet18_cifar"`, a ResNet-18 for small images, without pretrained weights; another preset, such
            as `"dinov2-s"`; or any timm model, with or without a weights tag
            (`"vit_base_patch16_224.orig_in21k"`).
        image_size: Height and width of the images, in pixels.
        pretrained: Load pretrained weights; those of timm models are downloaded once and cached.
        stage: See `Backbone`.
        freeze_batch_norm: See `Backbone`.
        pool: See `Backbone`.
        weights: File with the weights of a timm model, .safetensors or the original .npz of a ViT.
        weights_sha256: Hash that the content of this file must have; None: any.
        **options: Arguments of the timm model, such as `drop_path_rate=0.1`.

    Raises:
        UsageError: The model, stage or option is unknown.
        HashbenchError: The weights cannot be loaded or are damaged, or memory ran out.
    """
    name = full_name(name)
    file = None if weights is None else checked_file(name, Path(weights), weights_sha256)
    try:
        if name == BUILT_IN:
            network = efficientnet_lite0(pretrained, options)
        elif name == CIFAR_RESNET:
            network = resnet18_cifar(pretrained, options)
        else:
            network = _timm_model(name, image_size, pretrained, file, options)
        return Backbone(network, image_size, stage=stage, freeze_batch_norm=freeze_batch_norm, pool=pool)
    except Exception as error:
        if ran_out_of_memory(error.__cause__ or error):
            raise HashbenchError(
                f"out of memory while the backbone {name} was built; free memory, raise its limit "
                "(`ulimit -v`), or choose a smaller backbone"
            ) from error
        raise


def _timm_model(
    name: str, image_size: int, pretrained: bool, file: Path | None, options: dict[str, Any]
) -> nn.Module:
    if not timm.is_model(name):
        raise unknown_name("backbone", name, [CIFAR_RESNET, *PRESETS, *timm.list_models()])
    try:
        pretrained_cfg = timm.get_pretrained_cfg(name)
    except RuntimeError:
        raise unknown_name("backbone", name, timm.list_pretrained(f"{name.split('.')[0]}.*")) from None
    # Position embeddings depend on the image size; convolutions do not.
    size: dict[str, Any] = (
        {"img_size": image_size} if pretrained_cfg is not None and pretrained_cfg.fixed_input_size else {}
    )
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **size, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"backbone {name} cannot be built for {image_size} px images: {error}") from error
    if pretrained and file is not None:
        network = load_file_weights(name, file, num_classes=0, **size, **options)
    elif pretrained:
        # Built twice, to distinguish a failed download from a wrong option.
        try:
            require_reachable(pretrained_cfg)
            network = timm.create_model(name, pretrained=True, num_classes=0, **size, **options)
        except Exception as error:  # the client of the hub raises errors of many libraries
            raise weights_error(name, pretrained_cfg, error) from error
    return network
