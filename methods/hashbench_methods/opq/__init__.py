"""OPQ: Optimized Product Quantization (CVPR 2013), product quantization after a learned rotation."""

from hashbench_methods.opq.method import OPQ, optimized_rotation

__all__ = ["OPQ", "optimized_rotation"]
