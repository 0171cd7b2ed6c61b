"""Training of TBH, against its published recipe written out without shared code; see test_fidelity.py."""

from pathlib import Path

import torch
from helpers.fidelity import BATCH_SIZE, BITS, assert_same, trained
from torch import Tensor


def test_tbh(tmp_path: Path) -> None:
    """Two optimizers, one for each player, take their steps from the same weights."""
    run = trained("tbh", "losses", tmp_path, "backbone=test_efficientnet_ln", "lr=3e-4", "hidden=64")
    w = {
        name: tensor.detach().clone().requires_grad_()
        for name, tensor in run.before.named_parameters()
        if not name.startswith("backbone.")
    }
    discriminators = [name for name in w if "discriminator" in name]

    def layer(rows: Tensor, name: str) -> Tensor:
        return rows @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def adversarial(own: Tensor, random: Tensor, name: str) -> Tensor:
        real, fake = (layer(rows, name).sigmoid() for rows in (random, own))
        return -real.log().mean() - (1 - fake).log().mean()

    actors = torch.optim.Adam([w[name] for name in w if name not in discriminators], lr=3e-4)
    critics = torch.optim.Adam([w[name] for name in discriminators], lr=3e-4)
    losses = []
    for features, bits, values in run.batches:
        hidden = layer(features, "encoder").relu()
        probability = layer(hidden, "binary").sigmoid()
        codes = probability + ((probability >= 0.5).float() - probability).detach()
        # Linear in each code, also where bits agree; equal codes have no gradient.
        pairs = [[(code * (1 - other) + (1 - code) * other).sum() for other in codes] for code in codes]
        distances = torch.stack([torch.stack(row) for row in pairs])
        graph = (1 - torch.where(distances > 0, distances, 0) / BITS) ** 1.4
        degrees = graph.sum(1)
        graph = torch.stack([graph[i] / (degrees[i] * degrees).sqrt() for i in range(BATCH_SIZE)])
        bottleneck = (graph @ layer(layer(hidden, "continuous").sigmoid(), "gcn")).sigmoid()
        decoded = layer(layer(bottleneck, "decoder.0").relu(), "decoder.2").relu()
        reconstruction = ((decoded - features) ** 2).sum() / 2
        critic = adversarial(codes, bits, "binary_discriminator")
        critic = critic + adversarial(bottleneck, values, "continuous_discriminator")
        actor = reconstruction - critic
        slopes = torch.autograd.grad(critic, [w[name] for name in discriminators], retain_graph=True)
        actors.zero_grad()
        actor.backward()
        for name, slope in zip(discriminators, slopes, strict=True):
            w[name].grad = slope
        actors.step()
        critics.step()
        losses.append(actor.item() + critic.item())
    assert_same(run, losses, w)
