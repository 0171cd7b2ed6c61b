"""Contrastive losses, for methods that compare two views of a batch."""

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
