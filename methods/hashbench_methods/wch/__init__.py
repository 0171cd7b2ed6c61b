"""WCH: Weighted Contrastive Hashing (ACCV 2022), with patch similarities as soft targets."""

from hashbench_methods.wch.method import WCH, mutual_attention, patch_weights, weighted_contrastive_loss

__all__ = ["WCH", "mutual_attention", "patch_weights", "weighted_contrastive_loss"]
