"""Losses that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def nt_xent(rows1: Tensor, rows2: Tensor, temperature: float = 0.3) -> Tensor:
    """Compute the normalized temperature-scaled cross-entropy loss of SimCLR (Chen et al., ICML 2020).

    Each of the 2B rows has one positive, the same image in the other view, and 2B − 2 negatives.

    Args:
        rows1: Codes or features [B, D] of the first view.
        rows2: Codes or features [B, D] of the second view.
        temperature: Divisor of the cosine similarities.

    Returns:
        A scalar, the mean over the 2B rows.
    """
    rows = F.normalize(torch.cat([rows1, rows2]), dim=1)  # [2B, D]
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    similarity = (rows @ rows.T / temperature).masked_fill(itself, -torch.inf)
    partner = torch.arange(len(rows), device=rows.device).roll(len(rows1))
    return F.cross_entropy(similarity, partner)


def similarity_preserving_loss(codes: Tensor, features: Tensor) -> Tensor:
    """Return the mean squared difference between the cosine similarities of codes and of features.

    Each row of the first half of the batch is paired with a row of the second half. If the number of rows is
    odd, the last row is left out.

    Args:
        codes: Codes [B, bits].
        features: Features [B, F].

    Returns:
        A scalar.
    """
    return F.mse_loss(paired_cosine(codes), paired_cosine(features))


def paired_cosine(rows: Tensor) -> Tensor:
    """Return the cosine similarity of each row i < N/2 of [N, D] with row i + N/2, rounded down, [N/2]."""
    half = len(rows) // 2
    return F.cosine_similarity(rows[:half], rows[half : 2 * half])
