"""BiHalf: bits of maximal entropy by a layer that halves each batch (AAAI 2021), a linear head."""

from hashbench_methods.bihalf.method import BiHalf, bi_half, similarity_preserving_loss

__all__ = ["BiHalf", "bi_half", "similarity_preserving_loss"]
