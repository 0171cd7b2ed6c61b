"""A backbone: a timm model or another module, which maps images to tokens or to pooled vectors."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from hashbench.errors import UsageError

Pool = Literal["head", "cls", "mean"]


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
        pool: The vector of an image. "head": the input of the network's classifier (for VGG-16, fc7), or the
            mean token if the network has none or `stage` is set; "cls": the class token; "mean": the mean
            token.

    Raises:
        UsageError: The network has no such stage or class token, or does not accept images of this size.

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
        pool: Pool = "head",
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
        self.pool = pool
        if pool == "cls" and (stage is not None or not getattr(network, "num_prefix_tokens", 0)):
            raise UsageError("the backbone has no class token here; choose pool=head or pool=mean")
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
        """Return one vector per image, [B, F], of images [B, 3, H, W], as `pool` says."""
        if self.pool == "cls":
            return self._features(images)[:, 0]
        if self.pool == "head" and self.stage is None and hasattr(self.network, "forward_head"):
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
