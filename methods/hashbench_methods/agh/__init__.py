"""AGH: Anchor Graph Hashing (ICML 2011), eigenvectors of a graph of images and anchors."""

from hashbench.method.anchors import anchor_weights
from hashbench_methods.agh.method import AGH, layer_thresholds, spectral_projection

__all__ = ["AGH", "anchor_weights", "layer_thresholds", "spectral_projection"]
