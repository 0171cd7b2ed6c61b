"""ITQ: Iterative Quantization (CVPR 2011), principal components turned towards the corners of a cube."""

from hashbench_methods.itq.method import ITQ, iterative_quantization

__all__ = ["ITQ", "iterative_quantization"]
