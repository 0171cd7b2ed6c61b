"""TBH: an auto-encoder whose two bottlenecks, binary and continuous, learn from each other (CVPR 2020)."""

from hashbench_methods.tbh.method import TBH, code_adjacency, normalized_adjacency

__all__ = ["TBH", "code_adjacency", "normalized_adjacency"]
