"""MLS3RDUH: a similarity matrix that is reconstructed from manifold and cosine similarities (IJCAI 2020)."""

from hashbench_methods.mls3rduh.method import MLS3RDUH, log_cosh_loss, reconstructed_similarity

__all__ = ["MLS3RDUH", "log_cosh_loss", "reconstructed_similarity"]
