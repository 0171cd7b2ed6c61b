"""Errors of torch as one line, such as a lack of memory or a worker process that died."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hashbench import distributed
from hashbench.config import RunConfig
from hashbench.errors import HashbenchError
from hashbench.runtime import preemption

# Parts of messages, because torch has no class for this error on a CPU.
_NO_MEMORY = (
    "out of memory", "can't allocate memory", "Cannot allocate memory", "not enough memory",
    "_STATUS_ALLOC_FAILED",
)  # fmt: skip

_TOO_LARGE = ("without overflow", "out of bounds for float", "Overflow when unpacking")

ENCODE_LESS = "lower the image size, or choose a smaller backbone"
"""Advice if encoding takes too much memory."""


@contextmanager
def translate_errors(config: RunConfig, task: str, remedy: str) -> Iterator[None]:
    """Translate errors of the machine into errors of one line.

    Raises:
        HashbenchError: The machine ran out of memory, a worker process died, another process of the run
            failed, the training step cannot be compiled, or a setting is too large.
        PreemptionError: This process or a worker process received SIGTERM or SIGHUP.
    """
    try:
        yield
    # torch raises any of these
    except (MemoryError, OSError, OverflowError, RuntimeError, TypeError) as error:
        message = str(error)
        if stopped_loader(error) or preemption.requested():
            raise preemption.stopped() from error
        if ran_out_of_memory(error):
            raise _no_memory(config, task, remedy) from error
        if isinstance(error, OverflowError) or any(sign in message for sign in _TOO_LARGE):
            raise HashbenchError(
                f"{task}: a setting is too large for the network or the images; choose a smaller value"
            ) from error
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            raise HashbenchError(f"{task}: {error}; try fewer --workers, or raise `ulimit -n`") from error
        if message.startswith("DataLoader worker"):
            raise HashbenchError(
                f"{task}: a worker process died ({message.splitlines()[0]}), perhaps for lack of memory or "
                "of space in /dev/shm; try fewer --workers, or --workers 0"
            ) from error
        if distributed.world_size() > 1 and (
            "peer" in message or isinstance(error, torch.distributed.DistError)
        ):
            raise HashbenchError(
                f"process {distributed.rank()} of {distributed.world_size()} lost the others; "
                "see the error of the process that failed"
            ) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise HashbenchError(
                f"{task}: compile=true failed ({message.splitlines()[0]}); leave it out, or install what is "
                "missing, such as a C++ compiler"
            ) from error
        raise


def ran_out_of_memory(error: BaseException) -> bool:
    """Return True if an error reports a lack of memory, on the machine or on a GPU."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


def stopped_loader(error: Exception) -> bool:
    """Return True if a signal ended a worker process, for example because it was sent to a whole job."""
    killed = str(error).startswith("DataLoader worker")
    return killed and (preemption.requested() or "Terminated" in str(error) or "Hangup" in str(error))


def _no_memory(config: RunConfig, task: str, remedy: str) -> HashbenchError:
    where = "the machine"
    if config.device == "cuda":
        card = torch.cuda.get_device_properties(torch.cuda.current_device())
        where = f"{card.name} with {card.total_memory / 2**30:.0f} GiB"
    return HashbenchError(
        f"out of memory in {task}: {config.backbone.name} at {config.images.size} px in "
        f"{config.training.precision} on {where}; {remedy}"
    )
