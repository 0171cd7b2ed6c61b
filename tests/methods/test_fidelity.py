"""Training of each deep method, against its published recipe written out without shared code.

The harness trains the method with its built-in recipe on a tiny network, and the batches are recorded. The
same twenty steps are then computed by hand from the same weights. Learning rates are raised if the published
one would change almost nothing in so few steps.
"""

import copy
import math
from pathlib import Path

import torch
from helpers.fidelity import BATCH_SIZE, BATCHES, BITS, EPOCHS, assert_same, cosine, descend, signs, trained
from torch import Tensor, nn


def test_wch(tmp_path: Path) -> None:
    run = trained("wch", "training_losses", tmp_path, "backbone=test_vit", "lr=1e-3")
    vit = copy.deepcopy(run.before.backbone.network).train()
    norm, fc1, fc2 = (copy.deepcopy(getattr(run.before.head, name)) for name in ("norm", "fc1", "fc2"))

    def attend(tokens: Tensor, other: Tensor) -> Tensor:
        """Let the tokens of one view attend to those of the other."""
        rows = []
        for asking in other:
            scores = torch.stack([cosine(token, asking) for token in tokens])
            rows.append((scores.softmax(0)[:, None] * tokens).sum(0))
        return torch.stack(rows)

    def similarity(patches: Tensor, others: Tensor) -> Tensor:
        return torch.stack([torch.stack([cosine(p, q) for q in others]).max() for p in patches]).mean()

    def loss(view1: Tensor, view2: Tensor) -> Tensor:
        raw1, raw2 = (vit.forward_features(view)[:, 1:] for view in (view1, view2))  # without the class token
        tokens1 = torch.stack([attend(a, b) for a, b in zip(raw1, raw2, strict=True)])
        tokens2 = torch.stack([attend(b, a) for a, b in zip(raw1, raw2, strict=True)])
        alike = torch.stack([torch.stack([similarity(a, b) for b in tokens2]) for a in tokens1])
        targets = (alike / 0.2).softmax(1)
        targets = torch.stack([targets[:, j] / targets[j, j] for j in range(BATCH_SIZE)], 1)
        codes1, codes2 = (signs(torch.tanh(fc2(fc1(norm(t.mean(1))).relu()))) for t in (tokens1, tokens2))
        logits = torch.stack([torch.stack([(a * b).mean() for b in codes2]) for a in codes1]) / 0.3
        contrastive = -(targets * logits.log_softmax(1)).sum(1).mean()
        return contrastive + (codes1.mean(0) ** 2).mean() - (codes1**2).mean()

    parts = [vit, norm, fc1, fc2]
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()])
    losses = descend(run, loss, optimizer, lambda epoch: 1e-3 * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2)
    assert_same(run, losses, {"head.fc2.weight": fc2.weight, "head.norm.weight": norm.weight})


def test_cibhash(tmp_path: Path) -> None:
    run = trained("cibhash", "training_losses", tmp_path, "backbone=test_vit", "lr=3e-3")
    network = copy.deepcopy(run.before.backbone.network).eval()
    fc1, fc2 = (copy.deepcopy(layer) for layer in run.before.head if isinstance(layer, nn.Linear))

    def divergence(p: Tensor, q: Tensor) -> Tensor:
        q = q.detach()
        each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        return each.sum(1).mean()

    def loss(view1: Tensor, view2: Tensor) -> Tensor:
        with torch.no_grad():
            features = [network(view) for view in (view1, view2)]
        prob1, prob2 = (fc2(fc1(f).relu()).sigmoid() for f in features)
        codes = signs(torch.cat([prob1, prob2]) - 0.5)
        total = torch.zeros(())
        for i in range(2 * BATCH_SIZE):
            logits = torch.stack([cosine(codes[i], code) / 0.3 for code in codes])
            positive = (i + BATCH_SIZE) % (2 * BATCH_SIZE)
            others = torch.cat([logits[:i], logits[i + 1 :]])
            total = total + others.logsumexp(0) - logits[positive]
        contrastive = total / (2 * BATCH_SIZE)
        return contrastive + 0.001 * (divergence(prob1, prob2) + divergence(prob2, prob1)) / 2

    optimizer = torch.optim.Adam([*fc1.parameters(), *fc2.parameters()])
    losses = descend(run, loss, optimizer, lambda _: 3e-3)
    before = run.before.backbone.state_dict()
    assert_same(run, losses, {"head.2.weight": fc2.weight, **{f"backbone.{n}": t for n, t in before.items()}})


def test_bihalf(tmp_path: Path) -> None:
    run = trained(
        "bihalf", "feature_losses", tmp_path, "backbone=test_efficientnet", "lr=0.5", "step_epochs=2"
    )  # fmt: skip
    weight, bias = run.before.fc.weight.detach().clone(), run.before.fc.bias.detach().clone()
    speed = {"weight": torch.zeros_like(weight), "bias": torch.zeros_like(bias)}
    losses = []
    for step, (features,) in enumerate(run.batches):
        rate = 0.5 * 0.1 ** (step // BATCHES // 2)
        hashes = features @ weight.T + bias
        codes = -torch.ones_like(hashes)
        for bit in range(BITS):
            codes[hashes[:, bit].argsort(descending=True)[: BATCH_SIZE // 2], bit] = 1
        codes.requires_grad_()
        half = BATCH_SIZE // 2
        pairs = [(i, half + i) for i in range(half)]
        loss = (
            sum((cosine(codes[i], codes[j]) - cosine(features[i], features[j])) ** 2 for i, j in pairs) / half
        )
        assert isinstance(loss, Tensor)
        (gradient,) = torch.autograd.grad(loss, codes)
        gradient = gradient + 6 * (hashes - codes.detach()) / codes.numel()
        for name, parameter, slope in (
            ("weight", weight, gradient.T @ features),
            ("bias", bias, gradient.sum(0)),
        ):
            speed[name] = 0.9 * speed[name] + slope + 5e-4 * parameter
            parameter -= rate * speed[name]
        losses.append(loss.item())
    assert_same(run, losses, {"fc.weight": weight, "fc.bias": bias})


def test_spq(tmp_path: Path) -> None:
    run = trained("spq", "training_losses", tmp_path, "backbone=test_resnet", "lr=1e-3", "hold_epochs=1")
    network = copy.deepcopy(run.before.backbone.network).train()
    fc, head = copy.deepcopy(run.before.projection), copy.deepcopy(run.before.head)
    codebooks = nn.Parameter(run.before.codebooks.detach().clone())  # [4 books, 16 words, 16]
    assert codebooks.shape == (4, 16, 16)

    def quantize(features: Tensor) -> Tensor:
        pieces = []
        for book, piece in zip(codebooks, features.split(16, dim=1), strict=True):
            distances = torch.stack([((piece - word) ** 2).sum(1) for word in book], 1)
            pieces.append((-5 * distances).softmax(1) @ book)
        return torch.cat(pieces, 1)

    def contrast(rows: Tensor) -> Tensor:
        total = torch.zeros(())
        for i in range(len(rows)):
            logits = torch.stack([cosine(rows[i], row) / 0.5 for row in rows])
            positive = (i + BATCH_SIZE) % len(rows)
            total = total + torch.cat([logits[:i], logits[i + 1 :]]).logsumexp(0) - logits[positive]
        return total / len(rows)

    def loss(view1: Tensor, view2: Tensor) -> Tensor:
        xa, xb = (head(fc(network(view)).relu()) for view in (view1, view2))
        return contrast(torch.cat([xa, quantize(xb)])) + contrast(torch.cat([xb, quantize(xa)]))

    parts = [*network.parameters(), *fc.parameters(), *head.parameters(), codebooks]
    optimizer = torch.optim.Adam(parts, weight_decay=1e-5)

    def rate(epoch: int) -> float:
        """Fall to 0 from the second epoch on, in as many epochs as an epoch has batches."""
        return 1e-3 * (1 + math.cos(math.pi * max(0, epoch - 1) / BATCHES)) / 2

    losses = descend(run, loss, optimizer, rate)
    assert_same(
        run, losses, {"head.weight": head.weight, "codebooks": codebooks, "projection.weight": fc.weight}
    )
