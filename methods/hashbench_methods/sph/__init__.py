"""SpH: Spherical Hashing (CVPR 2012), bits of hyperspheres that hold half of the images each."""

from hashbench_methods.sph.method import SPH, balanced_spheres

__all__ = ["SPH", "balanced_spheres"]
