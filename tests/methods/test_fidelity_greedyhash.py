"""Training of unsupervised GreedyHash against its published recipe; see test_fidelity.py."""

from pathlib import Path

import torch
from helpers.fidelity import BATCH_SIZE, assert_same, cosine, trained
from torch import Tensor


def test_greedyhash(tmp_path: Path) -> None:
    run = trained("greedyhash", "feature_losses", tmp_path, "backbone=test_efficientnet", "lr=0.5")
    weight, bias = run.before.fc.weight.detach().clone(), run.before.fc.bias.detach().clone()
    speed = {"weight": torch.zeros_like(weight), "bias": torch.zeros_like(bias)}
    losses = []
    for (features,) in run.batches:
        hashes = features @ weight.T + bias
        codes = torch.where(hashes < 0, -1.0, 1.0).requires_grad_()
        half = BATCH_SIZE // 2
        pairs = [(i, half + i) for i in range(half)]
        loss = (
            sum((cosine(codes[i], codes[j]) - cosine(features[i], features[j])) ** 2 for i, j in pairs) / half
        )
        assert isinstance(loss, Tensor)
        (gradient,) = torch.autograd.grad(loss, codes)
        distance = hashes.abs() - 1
        gradient = gradient + 0.1 * 3 * distance**2 * distance.sign() * hashes.sign() / hashes.numel()
        for name, parameter, slope in (
            ("weight", weight, gradient.T @ features),
            ("bias", bias, gradient.sum(0)),
        ):
            speed[name] = 0.9 * speed[name] + slope + 5e-4 * parameter
            parameter -= 0.5 * speed[name]
        losses.append(loss.item() + 0.1 * (distance.abs() ** 3).mean().item())
    assert_same(run, losses, {"fc.weight": weight, "fc.bias": bias})
