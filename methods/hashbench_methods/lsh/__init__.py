"""LSH: signs of random projections, the floor of all hashing (STOC 2002)."""

from hashbench_methods.lsh.method import LSH

__all__ = ["LSH"]
