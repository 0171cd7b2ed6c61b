"""The reconstruction of similarities by MLS3RDUH, image by image."""

import math

import numpy as np
import torch
from torch import Tensor


def reconstruct(features: Tensor, near: int, manifold: int) -> tuple[Tensor, list[int], Tensor]:
    """Reconstruct the similarities image by image, in NumPy and double precision."""
    rows = features.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = rows @ rows.T
    number = range(len(rows))
    others = cosine - np.eye(len(rows))
    kept = [set(np.argsort(-others[i])[:near]) for i in number]
    edges = np.zeros_like(cosine)
    for i in number:
        for j in kept[i]:
            if i in kept[j] and others[i, j] > 1e-4:
                edges[i, j] = others[i, j]
    isolated = [i for i in number if not edges[i].any()]
    linked = [i for i in number if edges[i].any()]
    degrees = edges.sum(1)
    graph = np.array([[edges[i, j] / math.sqrt(degrees[i] * degrees[j]) for j in linked] for i in linked])
    walk = 0.01 * np.linalg.inv(np.eye(len(linked)) - 0.99 * graph)
    whole = np.zeros_like(cosine)
    target = cosine.copy()
    for a, i in enumerate(linked):
        for b, j in enumerate(linked):
            whole[i, j] = walk[a, b]
        confirmed = {linked[b] for b in np.argsort(-walk[a])[:manifold]}
        for j in sorted(linked, key=lambda other: -others[i, other])[:near]:
            target[i, j] = float(j in confirmed)
    for i in number:
        for j in range(i + 1):
            pair = target[i, j], target[j, i]
            if max(pair) > 0.999:
                target[i, j] = target[j, i] = 1
            elif min(pair) < 1e-4:
                target[i, j] = target[j, i] = 0
    return torch.from_numpy(2 * target - 1).float(), isolated, torch.from_numpy(whole).float()
