"""The checks of the contract of a method."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from hashbench.codes import BinaryCodes
from hashbench.data.dataset import Split
from hashbench.errors import HashbenchError, UsageError
from hashbench.experiment.weights import restore, save_weights
from hashbench.method.base import FeatureMethod, HashMethod, ShallowMethod
from hashbench.testing.method_under_test import BATCH, INDICES, MethodUnderTest, synthetic_images
from hashbench.testing.threads_as_processes import run_as_processes

BITS = (12, 16, 32, 48, 64, 128)


def check_losses(subject: MethodUnderTest) -> None:
    """Check that the losses are finite scalars including "loss", or a fitted method's values are finite."""
    method = subject.prepared()
    if not isinstance(method, ShallowMethod):
        subject.losses(method)
    elif not subject.encode(subject.trained, subject.images(BATCH)).isfinite().all():
        raise HashbenchError("encode_features() returns NaN or infinite values after fit(); fix fit()")


def check_gradients(subject: MethodUnderTest) -> None:
    """Check that the loss has a gradient for every parameter that is not frozen."""
    method = subject.prepared()
    if isinstance(method, ShallowMethod):
        return
    with torch.no_grad():
        for parameter in method.parameters():
            # No gradient passes through a layer that is initialized with zeros.
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    torch.autograd.backward(subject.losses(method)["loss"])
    unreached = [
        name
        for name, parameter in method.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    if unreached:
        others = f" and {len(unreached) - 3} more" if len(unreached) > 3 else ""
        raise HashbenchError(
            f"the loss has no gradient for {', '.join(unreached[:3])}{others}; use them in the loss "
            "(straight_through_sign for codes: torch.sign has no gradient) or set requires_grad=False"
        )


def check_per_image(subject: MethodUnderTest) -> None:
    """Check that the values and the code of an image do not depend on the rest of the batch."""
    method, images = subject.trained, subject.images(64)
    values = subject.encode(method, images)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    alone = subject.encode(method, *torch.split(images[:BATCH], 1))
    shuffled = subject.encode(method, images[order])[order.argsort()]
    tolerance = 1e-3 * values.abs().max()  # rounding depends on the batch size
    for batch, other in (("alone", alone), ("in a shuffled batch", shuffled)):
        if (other - values[: len(other)]).abs().max() > tolerance:
            raise HashbenchError(
                f"an image has different values {batch} than in a batch of 64; compute each row from its own "
                "image, without batch statistics and, in evaluation mode, without randomness"
            )
    rows = [_array(method, row) for row in torch.split(values, 1)]
    if not np.array_equal(_array(method, values), np.concatenate(rows)):
        raise HashbenchError(
            "codes() depends on the other rows of values; compute each code from its own row"
        )


def check_bits(subject: MethodUnderTest) -> None:
    """Check that the codes have the requested length, or that the method refuses it by a UsageError."""
    for bits in BITS:
        sized = MethodUnderTest(subject.name, subject.settings, bits)
        try:
            method = sized.build()
        except UsageError:
            continue
        if isinstance(method, ShallowMethod):
            method = sized.train()
        found = method.codes(sized.encode(method, subject.images(BATCH))).bits
        if found != bits:
            raise HashbenchError(f"expected codes of {bits} bits, got {found}; use the argument `bits`")


def check_save_load(subject: MethodUnderTest) -> None:
    """Check that a new method gives the same codes after loading the state of a trained one."""
    loaded, images = subject.build(), subject.images(64)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_weights(file, subject.trained, subject.config)
        try:
            restore(loaded, load_file(file))
        except RuntimeError as error:
            raise HashbenchError(
                f"a new method cannot load the saved state ({error}); "
                "create all parameters and buffers in __init__, in their final shape"
            ) from error
    before, after = (_array(m, subject.encode(m, images)) for m in (subject.trained, loaded))
    if not np.array_equal(before, after):
        raise HashbenchError(
            "the method gives different codes after saving and loading; keep everything that encode() needs "
            "in parameters and buffers (register_buffer), since nothing else is saved"
        )


def check_deterministic(subject: MethodUnderTest) -> None:
    """Check that training twice with the same seed gives bitwise equal states."""
    if name := _difference(subject.trained, subject.trained_again):
        raise HashbenchError(
            f"{name} differs after training twice with the same seed; draw random numbers only from the "
            "generators of torch, numpy.random and random, which a run seeds"
        )


def check_no_labels(subject: MethodUnderTest) -> None:
    """Check that other labels of the training images, and other queries, change nothing."""
    if _difference(subject.trained, subject.trained_again):
        return  # a difference would not prove that labels were used; check_deterministic fails
    with _relabelled():
        other = subject.train(synthetic_images(1))
    if name := _difference(subject.trained, other):
        raise HashbenchError(
            f"{name} differs when the same training images have other labels and the queries are others; "
            "remove the code that reads datasets, labels or queries, since a method learns from its training "
            "images only"
        )


def check_prepare(subject: MethodUnderTest) -> None:
    """Check that a method is prepared once, and that the losses depend on the indices that it asks for."""
    cls = type(subject.build())
    if cls.prepare is not HashMethod.prepare:
        with mock.patch.object(cls, "prepare", autospec=True, side_effect=cls.prepare) as prepare:
            subject.train()
        if prepare.call_count != 1:
            raise HashbenchError(
                f"prepare() is called {prepare.call_count} times; leave that to the training"
            )
    if cls.uses_indices:
        method = subject.prepared()
        rows = INDICES, INDICES.flip(0) + BATCH
        own, others = (subject.losses(method, indices=indices)["loss"] for indices in rows)
        if own == others:
            raise HashbenchError(
                "the losses are equal for other `indices`; look up what prepare() computed in these rows of "
                "the training set, or set uses_indices = False"
            )


def check_gather(subject: MethodUnderTest) -> None:
    """Check that two processes with half a batch each compute the loss of one with the whole batch."""
    method = subject.prepared().eval()  # without dropout, and with stored statistics
    if isinstance(method, FeatureMethod):
        return  # its features are gathered
    views = subject.views(method)
    whole, again = (subject.losses(method, views)["loss"].item() for _ in range(2))
    if whole != again:
        return  # it draws random numbers, as every process does for itself
    halves = slice(BATCH // 2), slice(BATCH // 2, None)
    work = [
        functools.partial(
            subject.losses, copy.deepcopy(method), [view[rows] for view in views], INDICES[rows]
        )
        for rows in halves
    ]
    losses = [losses["loss"].item() for losses in run_as_processes(work)]
    mean = sum(losses) / len(losses)
    if not math.isclose(mean, whole, rel_tol=1e-3, abs_tol=1e-5):
        raise HashbenchError(
            f"the loss of a batch is {whole:.5g}, but {mean:.5g} if two processes have one half of it each; "
            "call hashbench.gather on everything that is compared or averaged across images"
        )


def check_autocast(subject: MethodUnderTest) -> None:
    """Check that losses and gradients are finite in bfloat16 as on a GPU; fitted methods use float32."""
    method = subject.prepared()
    if isinstance(method, ShallowMethod):
        return
    try:
        with torch.autocast("cpu", torch.bfloat16):
            loss = subject.losses(method)["loss"]
        torch.autograd.backward(loss)
        for name, parameter in method.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise HashbenchError(f"the gradient of {name} is not finite")
    except Exception as error:
        raise HashbenchError(
            f"under torch.autocast to bfloat16: {_reason(error)}; compute the sensitive part on x.float() "
            "within torch.autocast(x.device.type, enabled=False)"
        ) from error


CHECKS: dict[str, Callable[[MethodUnderTest], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_losses,
        check_gradients,
        check_per_image,
        check_bits,
        check_save_load,
        check_deterministic,
        check_no_labels,
        check_prepare,
        check_gather,
        check_autocast,
    )
}


@dataclass(frozen=True)
class CheckResult:
    """Result of a check; the message of a failed one says what is wrong and what to do."""

    name: str
    passed: bool
    message: str = ""


def check_method(name: str, settings: Sequence[str] = ()) -> list[CheckResult]:
    """Run all checks.

    Args:
        name: Name of a registered method.
        settings: `KEY=VALUE` texts, as for `--set`.

    Raises:
        UsageError: The method, a setting or the backbone is unknown.
        HashbenchError: The method's module, its recipe or the backbone's weights cannot be read.
    """
    subject = MethodUnderTest(name, settings)
    # A HashbenchError is a wrong name or setting; any other error is a fault that the checks report.
    try:
        subject.build()
    except HashbenchError:
        raise
    except Exception:
        pass
    return [_result(check, subject) for check in CHECKS]


@contextlib.contextmanager
def _relabelled() -> Iterator[None]:
    """Permute the labels of every `Split` that is created within the context."""
    initialize = Split.__init__

    def initialize_permuted(split: Split, images: Any, labels: NDArray[Any]) -> None:
        initialize(split, images, np.random.RandomState(0).permutation(labels))

    with mock.patch.object(Split, "__init__", initialize_permuted):
        yield


def _array(method: HashMethod, values: Tensor) -> NDArray[Any]:
    """Return the codes of values as an array, for comparisons."""
    codes = method.codes(values)
    return codes.packed if isinstance(codes, BinaryCodes) else codes.reconstruct()


def _difference(one: HashMethod, other: HashMethod) -> str | None:
    """Return the name of the first tensor in which the states of two methods differ."""
    state, others = one.state_dict(), other.state_dict()
    missing = state.keys() ^ others.keys()
    return next((n for n in state | others if n in missing or not torch.equal(state[n], others[n])), None)


def _result(check: str, subject: MethodUnderTest) -> CheckResult:
    try:
        CHECKS[check](subject)
    except Exception as error:  # a method may raise anything
        return CheckResult(check, False, _reason(error))
    return CheckResult(check, True)


def _reason(error: Exception) -> str:
    kind = "" if isinstance(error, HashbenchError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
