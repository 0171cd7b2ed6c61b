"""NSH: Naturally-Sorted Hashing, contrastive learning of latent features that the codes sort (IJCAI 2022)."""

from hashbench_methods.nsh.method import NSH, soft_permutation, sorted_contrastive_loss

__all__ = ["NSH", "soft_permutation", "sorted_contrastive_loss"]
