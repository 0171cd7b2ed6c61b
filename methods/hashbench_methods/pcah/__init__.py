"""PCAH: signs of the first principal components."""

from hashbench_methods.pcah.method import PCAH

__all__ = ["PCAH"]
