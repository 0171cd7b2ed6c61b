"""PQ: Product Quantization (TPAMI 2011), codebooks by k-means and asymmetric distances."""

from hashbench_methods.pq.method import PQ

__all__ = ["PQ"]
