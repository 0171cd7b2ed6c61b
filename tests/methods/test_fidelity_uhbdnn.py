"""Training of UH-BDNN against its recipe; see test_fidelity.py."""

import copy
from pathlib import Path

import torch
from helpers.fidelity import BATCH_SIZE, BATCHES, BITS, assert_same, descend, trained
from torch import Tensor, nn


def test_uhbdnn(tmp_path: Path) -> None:
    run = trained("uhbdnn", "feature_losses", tmp_path, "backbone=test_efficientnet", "lr=1e-3")
    encoder = copy.deepcopy(run.before.encoder)
    first = run.after.targets
    raw = torch.stack([torch.zeros(run.batches[0][0].shape[1])] * BATCHES * BATCH_SIZE)
    for features, rows in run.batches[:BATCHES]:
        raw[rows] = features
    least, most = raw.min(0).values, raw.max(0).values
    scaled = ((raw - least) / (most - least).max()).double()
    inputs = torch.cat([first, torch.ones(len(first), 1)], dim=1).double()
    solution = torch.linalg.lstsq(inputs, scaled, driver="gelsd").solution.float()
    weight, bias = nn.Parameter(solution[:-1].T.clone()), nn.Parameter(solution[-1].clone())

    def cost(x: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        rest = x - (codes @ weight.T + bias).detach()
        return (rest**2).sum(1) + 0.05 * ((values.detach() - codes) ** 2).sum(1)

    def loss(features: Tensor, rows: Tensor) -> Tensor:
        x = (features - least) / (most - least).max()
        values = encoder(x)
        codes = first[rows].clone()
        for _ in range(10):
            for bit in range(BITS):
                codes[:, bit] = -1
                minus = cost(x, codes, values)
                codes[:, bit] = 1
                codes[minus < cost(x, codes, values), bit] = -1
        fit = ((x - codes @ weight.T - bias) ** 2).sum() / (2 * BATCH_SIZE)
        near = ((values - codes) ** 2).sum() / (2 * BATCH_SIZE)
        correlation = values.T @ values / BATCH_SIZE - torch.eye(BITS)
        balance = (values.sum(0) ** 2).sum() / (2 * BATCH_SIZE)
        return fit + 0.05 * near + 0.01 / 2 * (correlation**2).sum() + 5e-7 * balance

    optimizer = torch.optim.Adam([*encoder.parameters(), weight, bias], weight_decay=1e-5)
    losses = descend(run, loss, optimizer, lambda _: 1e-3)
    assert_same(run, losses, {"encoder.0.weight": encoder[0].weight, "encoder.4.weight": encoder[4].weight})
