"""Training of NSH against the recipe of its re-implementation; see test_fidelity.py."""

import copy
from pathlib import Path

import torch
from helpers.fidelity import BATCH_SIZE, BITS, assert_same, descend, trained
from torch import Tensor


def test_nsh(tmp_path: Path) -> None:
    run = trained("nsh", "training_losses", tmp_path, "backbone=test_vit", "lr=1e-3")
    network = copy.deepcopy(run.before.backbone).eval()
    head, latent = copy.deepcopy(run.before.hash), copy.deepcopy(run.before.latent)

    def loss(view1: Tensor, view2: Tensor) -> Tensor:
        with torch.no_grad():
            features = [network.pooled(view) for view in (view1, view2)]
        codes1, codes2 = (torch.tanh(head(f)) for f in features)
        latents1, latents2 = (latent(f) / latent(f).norm(dim=1, keepdim=True) for f in features)
        total = torch.zeros(())
        for i in range(BATCH_SIZE):
            alike = codes2 @ codes1[i] / (2 * BITS) + 0.5
            cosines = []
            for largest in alike.sort(descending=True).values:
                weights = (-(alike - largest).abs() * BITS).softmax(0)
                cosines.append(weights @ latents1 @ latents2[i] / 0.3)
            for positive in cosines[:2]:
                total = total + torch.stack([positive, *cosines[2:]]).logsumexp(0) - positive
        codes = torch.cat([codes1, codes2])
        return total / (2 * BATCH_SIZE) + ((codes - codes.detach().sign()) ** 2).mean()

    optimizer = torch.optim.Adam([*head.parameters(), *latent.parameters()], weight_decay=1e-5)
    losses = descend(run, loss, optimizer, lambda _: 1e-3)
    before = run.before.backbone.state_dict()
    weights = {"hash.weight": head.weight, "latent.weight": latent.weight}
    assert_same(run, losses, {**weights, **{f"backbone.{n}": t for n, t in before.items()}})
