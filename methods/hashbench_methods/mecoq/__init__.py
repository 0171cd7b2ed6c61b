"""MeCoQ: product codes by debiased contrastive learning with a memory of codes (AAAI 2022)."""

from hashbench_methods.mecoq.method import MeCoQ, debiased_contrastive_loss, soft_quantize

__all__ = ["MeCoQ", "debiased_contrastive_loss", "soft_quantize"]
