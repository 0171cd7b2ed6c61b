"""The one training loop."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.utils.data import DataLoader, Dataset, Sampler

from hashbench.config import OptimizerConfig, RunConfig, ViewConfig
from hashbench.errors import HashbenchError, UsageError
from hashbench.features import pooled_features
from hashbench.image_sets import Images
from hashbench.images import ViewTransform
from hashbench.method import FeatureMethod, HashMethod, ShallowMethod
from hashbench.progress import progress


def resolve_device(device: str) -> str:
    """`auto` -> `cuda` where there is a GPU, else `cpu`.

    Raises:
        UsageError: A GPU was asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: torch sees no GPU; check `nvidia-smi` and torch's CUDA build, or use --device cpu"
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """`auto` -> `bfloat16` on a GPU that computes in it, else `float32`."""
    if precision == "auto":
        computes = device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)  # from Ampere on
        return "bfloat16" if computes else "float32"
    return precision


def resolve_workers(workers: int | None, device: str) -> int:
    """Processes that load images beside the one that trains; by default up to 8 for a GPU.

    On a CPU training itself uses all cores, and more processes only take turns.
    """
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores - 1) if device == "cuda" else 0


def train(method: HashMethod, images: Images, config: RunConfig, *, workers: int, log: Path) -> None:
    """Train a method in place; the last epoch is the result.

    Args:
        method: What to train, or to fit.
        images: The training images, without labels.
        config: The run; `seed` fixes order and augmentation whatever the number of workers.
        workers: Processes that load images.
        log: Written as JSON lines, one a step: epoch, step, seconds, learning rate, the loss and its parts.
            For a method that is fitted, one line: images and seconds.

    Raises:
        HashbenchError: The loss is not finite; the message gives step and parts, the log all before.
    """
    if len(images) < 2:
        raise HashbenchError("training needs 2 images at least")
    set_seed(config.seed)
    if isinstance(method, ShallowMethod):
        _fit(method, images, config, workers, log)
    else:
        _descend(method, images, config, workers, log)
    method.eval()


def _fit(method: ShallowMethod, images: Images, config: RunConfig, workers: int, log: Path) -> None:
    start = time.monotonic()
    method.to(config.device)
    features = pooled_features(method.backbone, images, config, workers=workers, task="train")
    method.fit(features.to(config.device, copy=True))  # kept, and not the method's to change
    seconds = round(time.monotonic() - start, 3)
    log.write_text(_log_line(images=len(images), seconds=seconds), encoding="utf-8")


def _descend(method: HashMethod, images: Images, config: RunConfig, workers: int, log: Path) -> None:
    """Stochastic gradient descent, in one of its forms."""
    training = config.training
    inputs: Dataset[tuple[Tensor, ...]]
    on_features = (
        isinstance(method, FeatureMethod) and method.backbone.constant and config.views == ViewConfig()
    )
    sampler = _Shuffle(len(images), training.batch_size, training.drop_last, config.seed)
    if on_features:
        features = pooled_features(method.backbone, images, config, workers=workers, task="features")
        inputs, workers = _Features(features, method.views), 0
    else:
        inputs = _Views(images, ViewTransform(config.images, config.views), method.views, config.seed)
    # Accelerate keeps device and precision of the first run for the process; the runs of a grid may differ.
    AcceleratorState._reset_state(reset_partial_state=True)
    half = training.precision == "bfloat16" and not on_features  # heads are computed in full precision
    accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision="bf16" if half else "no")
    if accelerator.num_processes > 1:
        raise UsageError("a run takes one process; start it without torchrun or accelerate launch")
    loader = DataLoader(
        inputs,
        batch_size=training.batch_size,
        sampler=sampler,
        generator=torch.Generator().manual_seed(config.seed),  # else it draws from the generator of dropout
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=config.device == "cuda",
    )
    method.to(memory_format=torch.channels_last)  # convolutions train 1.7 times as fast on a CPU
    optimizer = _optimizer(method, config.optimizer)
    schedule, per_step = _schedule(optimizer, config, len(loader))
    model, optimizer, loader = accelerator.prepare(_Losses(method, on_features), optimizer, loader)
    model.train()

    start, step = time.monotonic(), 0
    with (
        log.open("w", encoding="utf-8") as lines,
        progress("train", training.epochs * len(loader)) as advance,
    ):
        for epoch in range(training.epochs):
            sampler.epoch = epoch
            for batch in loader:
                rate = optimizer.param_groups[-1]["lr"]
                losses: dict[str, Tensor] = model(*batch)
                numbers = _numbers(method, losses)
                seconds = round(time.monotonic() - start, 3)
                lines.write(_log_line(epoch=epoch, step=step, seconds=seconds, lr=rate, **numbers))
                if not math.isfinite(numbers["loss"]):
                    parts = ", ".join(f"{name} {number}" for name, number in numbers.items())
                    raise HashbenchError(
                        f"the loss is not finite at step {step} (epoch {epoch}): {parts}; "
                        "try a lower --set lr=…, --set gradient_clip=1 or --set precision=float32; "
                        f"the log is {log}"
                    )
                accelerator.backward(losses["loss"])
                if training.gradient_clip is not None:
                    accelerator.clip_grad_norm_(model.parameters(), training.gradient_clip)
                optimizer.step()
                optimizer.zero_grad()
                if per_step:
                    schedule.step()
                step += 1
                advance(1, f"epoch {epoch + 1}/{training.epochs}, loss {numbers['loss']:.4g}")
            if not per_step:
                schedule.step()


def _numbers(method: HashMethod, losses: dict[str, Tensor]) -> dict[str, float]:
    """The losses as numbers, fetched from the device at once."""
    if "loss" not in losses:
        raise HashbenchError(f"{type(method).__name__}.training_losses gives no 'loss'")
    numbers = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    return dict(zip(losses, numbers, strict=True))


def _log_line(**entry: float) -> str:
    """A line of JSON, which has no number for what is not finite."""
    return json.dumps({name: v if math.isfinite(v) else str(v) for name, v in entry.items()}) + "\n"


def _optimizer(method: HashMethod, config: OptimizerConfig) -> torch.optim.Optimizer:
    groups = list(method.parameter_groups(config.lr, config.backbone_lr))
    if not groups:
        raise HashbenchError(
            f"{type(method).__name__} has nothing to train; "
            "add --set freeze_backbone=false, or give it parameters"
        )
    if config.name == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    optimizer = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return optimizer(groups, weight_decay=config.weight_decay)


def _schedule(
    optimizer: torch.optim.Optimizer, config: RunConfig, steps_per_epoch: int
) -> tuple[LRScheduler, bool]:
    """The schedule, and whether it moves by step (else by epoch)."""
    epochs, schedule = config.training.epochs, config.schedule
    if schedule.name == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        steps = epochs * steps_per_epoch
        return OneCycleLR(optimizer, max_lr=rates, total_steps=steps, cycle_momentum=False), True

    def factor(epoch: int) -> float:
        if schedule.name == "step":
            return schedule.step_factor ** (epoch // schedule.step_epochs)
        if schedule.name == "cosine":
            length = schedule.cosine_epochs or max(1, epochs - schedule.hold_epochs)
            fallen = max(0, epoch - schedule.hold_epochs) / (
                steps_per_epoch if length == "batches" else length
            )
            return (1 + math.cos(math.pi * fallen)) / 2
        return 1.0

    return LambdaLR(optimizer, factor), False


class _Losses(nn.Module):
    """The losses of a batch of images or of features, as the module that accelerate wraps."""

    def __init__(self, method: HashMethod, on_features: bool) -> None:
        super().__init__()
        self.method, self.on_features = method, on_features

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        if self.on_features:
            assert isinstance(self.method, FeatureMethod)
            return self.method.feature_losses(*inputs)
        return self.method.training_losses(*(view.to(memory_format=torch.channels_last) for view in inputs))


class _Shuffle(Sampler[int]):
    """A new order each epoch; an item is `epoch * size + index`, so that views differ between epochs.

    If the last batch had a single image, that is left out: it has no contrast and no batch to normalize.
    """

    def __init__(self, size: int, batch_size: int, drop_last: bool, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0
        left_over = size % batch_size
        self.used = size - (left_over if drop_last or left_over == 1 else 0)
        if not self.used:
            raise UsageError(
                f"{size} training images do not fill a batch of {batch_size}; "
                "try a smaller --set batch_size=… or --set drop_last=false"
            )

    def __len__(self) -> int:
        return self.used

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        yield from (self.epoch * self.size + order[: self.used]).tolist()


class _Views(Dataset[tuple[Tensor, ...]]):
    """Augmented views; each draws from a generator of its own, so no view depends on workers or batches."""

    def __init__(self, images: Images, transform: ViewTransform, views: int, seed: int) -> None:
        self.images, self.transform, self.views, self.seed = images, transform, views, seed

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        image = self.images[item % len(self.images)]
        with torch.random.fork_rng(devices=[]):
            state = np.random.SeedSequence([self.seed, item]).generate_state(1, np.uint64)
            torch.default_generator.manual_seed(int(state[0]))
            return self.transform.several(image, self.views)


class _Features(Dataset[tuple[Tensor, ...]]):
    """Features of images as they are, the same for each view."""

    def __init__(self, features: Tensor, views: int) -> None:
        self.features, self.views = features, views

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        return (self.features[item % len(self.features)],) * self.views
