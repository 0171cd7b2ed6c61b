"""Training of a method by the harness, and plain gradient descent to compare it with."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from hashbench import ArrayImages, HashMethod, registry
from hashbench.experiment.weights import build_method
from hashbench.recipe import load_recipe, resolve
from hashbench.training.trainer import train

BITS = 16
EPOCHS, BATCHES, BATCH_SIZE = 5, 4, 8
STEPS = EPOCHS * BATCHES
RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 226, (BATCHES * BATCH_SIZE, 1, 1, 3)) + RANDOM.randint(
    0, 30, (BATCHES * BATCH_SIZE, 32, 32, 3)
)
IMAGES = ArrayImages(PIXELS.astype(np.uint8), [f"i{n}" for n in range(len(PIXELS))])


class Trained(NamedTuple):
    """Result of the harness: the method before and after training, its inputs with indices, the losses."""

    before: HashMethod
    after: HashMethod
    batches: list[tuple[Tensor, ...]]
    losses: list[float]


def trained(name: str, inputs: str, folder: Path, *settings: str) -> Trained:
    """Train a method for twenty steps.

    Args:
        name: The method.
        inputs: Name of the function of the method whose arguments are recorded, with indices as the last one.
        folder: Folder of the log.
        *settings: Settings that override the recipe.
    """
    entry = registry.find("method", name)
    recipe = entry.recipe()
    assert recipe is not None
    config = resolve(
        load_recipe(recipe, "cifar10", BITS),
        [
            "pretrained=false", "images.size=32", f"epochs={EPOCHS}", f"batch_size={BATCH_SIZE}",
            "precision=float32", *settings,
        ],
        entry.load().Hyperparameters,
        method=name, dataset="cifar10", protocol="none", bits=BITS, seed=0, device="cpu",
    )  # fmt: skip
    method = build_method(config)
    before = copy.deepcopy(method)
    batches: list[tuple[Tensor, ...]] = []
    original: Callable[..., Any] = getattr(method, inputs)

    def recorder(*batch: Tensor, **indices: Tensor) -> Any:
        batches.append((*batch, *indices.values()))
        return original(*batch, **indices)

    setattr(method, inputs, recorder)
    train(method, IMAGES, config, folder)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(log) == len(batches) == STEPS
    return Trained(before, method, batches, [entry["loss"] for entry in log])


def descend(
    run: Trained, loss: Callable[..., Tensor], optimizer: torch.optim.Optimizer, rate: Callable[[int], float]
) -> list[float]:
    """Compute the losses of plain gradient descent on the recorded batches; `rate` depends on the epoch."""
    losses = []
    for step, batch in enumerate(run.batches):
        for group in optimizer.param_groups:
            group["lr"] = rate(step // BATCHES)
        optimizer.zero_grad()
        value = loss(*batch)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def assert_same(run: Trained, losses: list[float], weights: dict[str, Tensor]) -> None:
    assert max(losses) - min(losses) > 1e-2 * abs(losses[0])  # the loss changes
    assert run.losses == pytest.approx(losses, rel=1e-3)
    before, after = run.before.state_dict(), run.after.state_dict()
    for name, weight in weights.items():  # Adam takes a full step even if a gradient is only rounding error
        assert (after[name] - weight).norm() <= 5e-2 * (weight - before[name]).norm(), name


def cosine(first: Tensor, second: Tensor) -> Tensor:
    return first @ second / (first.norm() * second.norm())


def signs(values: Tensor) -> Tensor:
    """Return ±1, with a straight-through gradient."""
    ones = torch.ones_like(values)
    return values + (torch.where(values < 0, -ones, ones) - values).detach()
