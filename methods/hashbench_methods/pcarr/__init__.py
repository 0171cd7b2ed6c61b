"""PCA-RR: signs of principal components after a random rotation."""

from hashbench_methods.pcarr.method import PCARR

__all__ = ["PCARR"]
