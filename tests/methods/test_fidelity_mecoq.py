"""Training of MeCoQ, against its published recipe written out without shared code; see test_fidelity.py."""

import copy
import math
from pathlib import Path

import torch
from helpers.fidelity import BATCH_SIZE, BATCHES, STEPS, assert_same, descend, trained
from torch import Tensor


def test_mecoq(tmp_path: Path) -> None:  # noqa: PLR0915 (a recipe from beginning to end)
    run = trained(
        "mecoq", "training_losses", tmp_path, "backbone=test_vit", "lr=0.1", "training.frozen_layers=[]",
        "queue_begin_epoch=2", "queue=32", "words=16",
    )  # fmt: skip
    network, head = copy.deepcopy(run.before.backbone.network).train(), copy.deepcopy(run.before.head)
    books = run.before.codebooks.detach()
    memory: list[Tensor] = []

    def unit(rows: Tensor) -> Tensor:
        return rows / rows.norm(dim=1, keepdim=True)

    def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
        pieces = values.split(books.shape[2], dim=1)
        codes = [(10 * unit(piece) @ book.T).softmax(1) for book, piece in zip(books, pieces, strict=True)]
        return torch.stack(codes), torch.cat(
            [code @ book for code, book in zip(codes, books, strict=True)], 1
        )

    def loss(view1: Tensor, view2: Tensor) -> Tensor:
        (codes1, rows1), (codes2, rows2) = (quantize(head(network(view))) for view in (view1, view2))
        rows = unit(torch.cat([rows1, rows2]))
        count = 2 * BATCH_SIZE - 2
        stored = rows[:0]
        if len(memory) >= 2 * 2 * BATCHES:  # after two epochs, both views of two batches
            blocks = [[code @ book for code, book in zip(codes, books, strict=True)] for codes in memory[-4:]]
            stored = torch.cat([torch.cat(block, 1) for block in blocks])
        positives, negatives = [], []
        for i in range(2 * BATCH_SIZE):
            partner = (i + BATCH_SIZE) % (2 * BATCH_SIZE)
            others = [j for j in range(2 * BATCH_SIZE) if j not in (i, partner)]
            positives.append((rows[i] @ rows[partner] / 0.35).exp())
            negatives.append((torch.cat([rows[others], stored]) @ rows[i] / 0.35).exp().sum())
        table = []
        for positive in positives:
            debiased = (torch.stack(negatives) - 0.1 * count * positive) / 0.9
            debiased = debiased.clamp_min(math.exp(-count / 0.35))
            table.append(-(positive / (positive + debiased)).log())
        entropy = sum(-(code * code.log()).sum(2).mean() for code in (codes1, codes2)) / 2
        similarity = sum((book @ book.T).mean() for book in books) / len(books)
        memory.extend([codes1.detach(), codes2.detach()])
        return torch.stack(table).mean() + 0.01 * entropy + 0.5 * similarity

    step = 0

    def rate(_: int) -> float:
        """Rise in the first epoch, and fall after it, by step."""
        nonlocal step
        share = step / (BATCHES - 1)
        if step >= BATCHES:
            share = (1 + math.cos(math.pi * (step - BATCHES) / (STEPS - BATCHES))) / 2
        step += 1
        return 0.1 * (1e-3 + (1 - 1e-3) * share)

    parts = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parts, lr=0.1, momentum=0.9, weight_decay=0.01)
    losses = descend(run, loss, optimizer, rate)
    assert_same(run, losses, {"head.weight": head.weight, "head.bias": head.bias})
    assert torch.equal(run.after.codebooks, books)
