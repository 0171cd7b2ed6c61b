"""ITQ: Iterative Quantization (CVPR 2011), rotated principal components."""

from hashbench_methods.itq.method import ITQ, iterative_quantization

__all__ = ["ITQ", "iterative_quantization"]
