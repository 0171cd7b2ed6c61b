"""IMH: Inductive Manifold Hashing (CVPR 2013), t-SNE of base points that is extended to all images."""

from hashbench_methods.imh.method import IMH, inductive_embedding

__all__ = ["IMH", "inductive_embedding"]
