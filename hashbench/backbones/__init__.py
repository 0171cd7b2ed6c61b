"""Backbones, which map images to tokens or to pooled vectors."""

from hashbench.backbones.backbone import Backbone
from hashbench.backbones.create import create_backbone

__all__ = ["Backbone", "create_backbone"]
