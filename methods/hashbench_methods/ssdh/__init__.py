"""SSDH: semantic structure from the distribution of feature distances (IJCAI 2018)."""

from hashbench_methods.ssdh.method import SSDH, distance_thresholds, similarity_loss, similarity_targets

__all__ = ["SSDH", "distance_thresholds", "similarity_loss", "similarity_targets"]
