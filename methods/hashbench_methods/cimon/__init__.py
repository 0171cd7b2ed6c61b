"""CIMON: similarities that clusters confirm, and contrastive learning between two views (IJCAI 2021)."""

from hashbench.method.similarity import semantic_loss
from hashbench_methods.cimon.method import CIMON, pseudo_similarity

__all__ = ["CIMON", "pseudo_similarity", "semantic_loss"]
