"""CIBHash: contrastive learning of codes with an information bottleneck (IJCAI 2021)."""

from hashbench.method.losses import nt_xent
from hashbench_methods.cibhash.method import CIBHash, symmetric_bernoulli_kl

__all__ = ["CIBHash", "nt_xent", "symmetric_bernoulli_kl"]
