"""LSH: signs of random projections (STOC 2002)."""

from hashbench_methods.lsh.method import LSH

__all__ = ["LSH"]
