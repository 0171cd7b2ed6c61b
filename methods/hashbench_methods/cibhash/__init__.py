"""CIBHash: contrastive codes with an information bottleneck (IJCAI 2021), a head on a frozen network."""

from hashbench_methods.cibhash.method import CIBHash, nt_xent, symmetric_bernoulli_kl

__all__ = ["CIBHash", "nt_xent", "symmetric_bernoulli_kl"]
