"""Training of SDC against its published recipe; see test_fidelity.py."""

import copy
from pathlib import Path

import scipy.stats
import torch
from helpers.fidelity import BATCH_SIZE, assert_same, cosine, descend, trained
from torch import Tensor


def test_sdc(tmp_path: Path) -> None:
    run = trained(
        "sdc", "feature_losses", tmp_path, "backbone=test_efficientnet", "lr=1e-3", "step_epochs=4",
        "images.resize=null",
    )  # fmt: skip
    fc1, _, fc2, norm = (copy.deepcopy(layer) for layer in run.before.head)
    pairs = BATCH_SIZE // 2
    quantiles = [2 * scipy.stats.beta.ppf((j + 0.5) / pairs, 5, 5) - 1 for j in range(pairs)]

    def loss(features: Tensor) -> Tensor:
        hidden = fc1(features)
        values = fc2(hidden * (1 + torch.erf(hidden / 2**0.5)) / 2)
        values = (values - values.mean(0)) / (values.var(0, unbiased=False) + 1e-5).sqrt()
        values = values * norm.weight + norm.bias
        wanted = [float(cosine(features[i], features[i + pairs])) for i in range(pairs)]
        ranks = sorted(range(pairs), key=wanted.__getitem__)
        total = torch.zeros(())
        for target, i in zip(quantiles, ranks, strict=True):
            total = total + (cosine(values[i], values[i + pairs]) - target).abs() / pairs
        for row in values:
            total = total + (1 - cosine(row, row.sign())) / BATCH_SIZE
        return total

    parts = [fc1, fc2, norm]
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], weight_decay=1e-5)
    losses = descend(run, loss, optimizer, lambda epoch: 1e-3 * 0.1 ** (epoch // 4))
    assert_same(run, losses, {"head.0.weight": fc1.weight, "head.2.weight": fc2.weight})
