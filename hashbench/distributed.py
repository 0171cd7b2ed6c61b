"""Training of one run in several processes, as started by torchrun or `accelerate launch`.

Each process takes its shard of every batch. A loss that compares images needs the whole batch: `gather`
concatenates the shards, with gradients. Every process then computes the same loss, and gradients are averaged
over processes, which gives the gradients of one process with the whole batch.

In a single process, all functions are no-ops.
"""

from __future__ import annotations

import functools
import os
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from hashbench.errors import UsageError

Value = TypeVar("Value")


def started() -> int:
    """Return the number of processes that a launcher started for this command."""
    return int(os.environ.get("WORLD_SIZE", 1))


def init_process_group(device: str) -> None:
    """Connect with the other processes of this command, if there are any.

    Args:
        device: "cpu" or "cuda"; torch's current device is then a different GPU in each process.

    Raises:
        UsageError: There are fewer GPUs than processes, or accelerate is set up to split the network.
    """
    for engine in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true":
            raise UsageError(
                f"accelerate is set up for {engine}, which splits networks over GPUs; hashbench needs them "
                "whole: start it by torchrun, or choose multi-GPU in `accelerate config`"
            )
    if started() == 1:
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device == "cuda" and here > torch.cuda.device_count():
        raise UsageError(f"{here} processes need as many GPUs; torch sees {torch.cuda.device_count()}")
    PartialState(cpu=device == "cpu")
    _object_group()  # creating it needs all processes


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _connected() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _connected() else 0


def shard(total: int, unit: int = 1) -> slice:
    """Return this process's part of `total` items, split evenly into whole units of `unit` items."""
    units = -(-total // unit)
    start, stop = (units * number // world_size() * unit for number in (rank(), rank() + 1))
    return slice(start, min(stop, total))


def gather(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes in order of rank; gradients flow back to the process of each row.

    Call it in `training_losses` on everything that the loss compares across images. A method on features does
    not need it, since its features are gathered already.

    Args:
        rows: [B of this process, …]; B may differ between processes.

    Returns:
        [B of all processes, …]; `rows` itself in a single process.
    """
    gathered: Tensor = _Gather.apply(rows) if world_size() > 1 else rows
    return gathered


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum values over processes; gradients are summed, too."""
    summed: Tensor = _Sum.apply(values) if world_size() > 1 else values
    return summed


def any_rank(flag: bool) -> bool:
    """Return True if the flag is set in any process."""
    if world_size() == 1:
        return flag
    return bool(all_reduce_sum(torch.tensor([float(flag)], device=_device())).item())


def all_gather_object(value: Value) -> list[Value]:
    """Return the values of all processes, in order of rank."""
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value, group=_object_group())
    return values


def broadcast_object(value: Value) -> Value:
    """Return the value of the main process."""
    return all_gather_object(value)[0]


def barrier() -> None:
    """Wait for all processes."""
    all_gather_object(None)


def synchronize_batch_norm(module: nn.Module, device: str) -> nn.Module:
    """Let batch normalization in training use the statistics of the batch of all processes.

    Args:
        module: The module, whose layers are replaced; their weights and names stay.
        device: "cpu" or "cuda"; torch's synchronized layer supports GPUs only.
    """
    if world_size() == 1:
        return module
    if device == "cuda":
        converted: nn.Module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.forward = functools.partial(_normalize, layer)  # type: ignore[method-assign]
    return module


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
        dist.all_gather(lengths, torch.full_like(lengths[0], len(rows)))
        sizes: list[int] = torch.cat(lengths).tolist()
        ctx.own = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])  # backends need equal shapes
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)[ctx.own]  # type: ignore[no-any-return]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(None, gradient)


def _normalize(layer: nn.modules.batchnorm._BatchNorm, values: Tensor) -> Tensor:
    """Compute the forward pass of batch normalization; in training, over the batch of all processes."""
    if not layer.training:
        normalized: Tensor = type(layer).forward(layer, values)
        return normalized
    kind, values = values.dtype, values.float()
    axes = [axis for axis in range(values.ndim) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(values.ndim)]
    n = all_reduce_sum(torch.tensor(float(values.numel() // values.shape[1])))
    mean = all_reduce_sum(values.sum(axes)) / n
    centred = values - mean.view(shape)
    variance = all_reduce_sum(centred.square().sum(axes)) / n
    normalized = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        normalized = normalized * layer.weight.view(shape) + layer.bias.view(shape)
    if layer.running_mean is not None and layer.running_var is not None:
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked += 1
        step = 1 / int(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
        with torch.no_grad():
            layer.running_mean.lerp_(mean, step)
            layer.running_var.lerp_(variance * n / (n - 1), step)
    normalized = normalized.to(kind)
    for after in ("drop", "act"):  # the last steps of timm's layers
        normalized = getattr(layer, after, nn.Identity())(normalized)
    return normalized


@functools.cache
def _object_group() -> Any:
    """Return the group over which objects are sent.

    Its timeout is long, since the main process may work alone, such as writing files, while the others wait.
    """
    return dist.new_group(backend="gloo", timeout=timedelta(days=7))


def _connected() -> bool:
    return dist.is_available() and dist.is_initialized()


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
