"""SH: Spectral Hashing (NIPS 2008), signs of waves along the principal components."""

from hashbench_methods.sh.method import SH, smoothest_waves

__all__ = ["SH", "smoothest_waves"]
