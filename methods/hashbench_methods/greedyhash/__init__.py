"""GreedyHash, unsupervised: the sign as a layer, with the gradient of the identity (NeurIPS 2018)."""

from hashbench.method.losses import similarity_preserving_loss as similarity_loss
from hashbench_methods.greedyhash.method import GreedyHash, quantization_penalty

__all__ = ["GreedyHash", "quantization_penalty", "similarity_loss"]
