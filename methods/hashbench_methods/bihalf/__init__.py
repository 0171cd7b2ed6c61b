"""BiHalf: bits of maximum entropy from a layer that splits each batch in half (AAAI 2021)."""

from hashbench.method.losses import similarity_preserving_loss
from hashbench_methods.bihalf.method import BiHalf, bi_half

__all__ = ["BiHalf", "bi_half", "similarity_preserving_loss"]
