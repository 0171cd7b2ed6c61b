"""CIBHash: contrastive codes with an information bottleneck (IJCAI 2021), a head on a frozen network."""

from hashbench.method.losses import nt_xent
from hashbench_methods.cibhash.method import CIBHash, symmetric_bernoulli_kl

__all__ = ["CIBHash", "nt_xent", "symmetric_bernoulli_kl"]
