"""SKLSH: Locality-Sensitive Binary Codes from Shift-Invariant Kernels (NIPS 2009)."""

from hashbench_methods.sklsh.method import SKLSH

__all__ = ["SKLSH"]
