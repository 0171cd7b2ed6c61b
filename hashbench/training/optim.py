"""Optimizers and learning rate schedules."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from hashbench.config import OptimizerConfig, RunConfig
from hashbench.errors import HashbenchError
from hashbench.method.base import HashMethod


def create_optimizer(method: HashMethod, config: OptimizerConfig, device: str) -> torch.optim.Optimizer:
    """Create the optimizer of a method's trainable parameters; it is fused on a GPU.

    Raises:
        HashbenchError: The method has no trainable parameters.
    """
    groups = list(method.parameter_groups(config.lr, config.backbone_lr))
    if not groups:
        raise HashbenchError(
            f"{type(method).__name__} has no trainable parameters; "
            "add --set freeze_backbone=false, or parameters to the method"
        )
    fused = device == "cuda"
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
        )
    optimizer: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    return optimizer(groups, eps=config.eps, weight_decay=config.weight_decay, fused=fused)


def create_schedule(
    optimizer: torch.optim.Optimizer, config: RunConfig, batches: int
) -> tuple[LRScheduler, bool]:
    """Create a learning rate schedule, and return True with it if it changes by step and not by epoch."""
    epochs, schedule = config.training.epochs, config.schedule
    steps_per_epoch = -(-batches // config.training.accumulate)
    steps = epochs * steps_per_epoch
    if schedule.name == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=rates, total_steps=steps, cycle_momentum=False), True

    if schedule.name == "warmup_cosine":
        warmup, floor = round(schedule.warmup_epochs * steps_per_epoch), schedule.final_factor

        def factor_of_step(step: int) -> float:
            if step < warmup:  # the last step of the rise has the full rate
                share = step / max(1, warmup - 1)
            else:
                share = (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
            return floor + (1 - floor) * share

        return LambdaLR(optimizer, factor_of_step), True

    def factor(epoch: int) -> float:
        if schedule.name == "step":
            return schedule.step_factor ** (epoch // schedule.step_epochs)
        if schedule.name == "cosine":
            length = schedule.cosine_epochs or max(1, epochs - schedule.hold_epochs)
            decay = max(0, epoch - schedule.hold_epochs) / (batches if length == "batches" else length)
            return (1 + math.cos(math.pi * decay)) / 2
        return 1.0

    return LambdaLR(optimizer, factor), False
