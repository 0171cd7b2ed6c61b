"""Training of CroVCA, against its published recipe written out without shared code; see test_fidelity.py."""

import copy
import math
from pathlib import Path

import torch
from helpers.fidelity import BATCH_SIZE, BATCHES, BITS, STEPS, assert_same, trained
from torch import Tensor


def test_crovca(tmp_path: Path) -> None:
    run = trained(  # without a larger eps, Adam takes full steps where gradients are only rounding errors
        "crovca", "training_losses", tmp_path,
        "backbone=test_vit", "images.resize=null", "lr=0.01", "eps=1e-3",
    )  # fmt: skip
    network, head = copy.deepcopy(run.before.backbone.network).eval(), copy.deepcopy(run.before.head)
    fc1, fc2, norm = head[0], head[2], head[3]

    def project(view: Tensor) -> Tensor:
        with torch.no_grad():
            features = network(view)
        values = fc2(fc1(features).relu())
        centred = values - values.mean(0)
        return centred / (centred.square().mean(0) + 1e-5).sqrt() * norm.weight + norm.bias

    def cross_entropy(values: Tensor, other: Tensor) -> Tensor:
        return torch.where(other > 0, -values.sigmoid().log(), -(1 - values.sigmoid()).log()).mean()

    def rate(values: Tensor) -> Tensor:
        units = values / values.norm(dim=1, keepdim=True)
        scatter = sum(torch.outer(row, row) for row in units)
        matrix = torch.eye(BITS) + BITS / (BATCH_SIZE * 0.05) * scatter
        return matrix.logdet() / 2 * (BITS + BATCH_SIZE) / (BITS * BATCH_SIZE)

    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.01, eps=1e-3)
    losses = []
    for step, (view1, view2) in enumerate(run.batches):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * step / STEPS)) / 2)
        values1, values2 = project(view1), project(view2)
        alignment = (cross_entropy(values1, values2) + cross_entropy(values2, values1)) / 2
        loss = alignment - 0.1 * (rate(values1) + rate(values2)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert len(losses) == 5 * BATCHES
    assert_same(run, losses, {"head.0.weight": fc1.weight, "head.2.weight": fc2.weight})
