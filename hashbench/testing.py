"""The contract of a method as checks that run in seconds, on made-up images and without a GPU.

`hashbench check-method NAME` runs them. The test file of a method is

    import pytest
    from hashbench.testing import CHECKS, Subject

    SUBJECT = Subject("mine")  # before it registry.add_plugin_file(path), for a plugin file

    @pytest.mark.parametrize("check", CHECKS)
    def test_contract(check):
        CHECKS[check](SUBJECT)
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from hashbench.codes import BinaryCodes
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset, Split
from hashbench.encoding.features import TransformedImages, inference_mode
from hashbench.errors import HashbenchError
from hashbench.experiment.artifacts import restore, save_weights
from hashbench.experiment.run import build_method, configure
from hashbench.images.image_sets import ArrayImages
from hashbench.images.transforms import ViewTransform
from hashbench.method.base import HashMethod, ShallowMethod
from hashbench.training.trainer import train

BITS = (12, 16, 32, 48, 64, 128)
BATCH = 16
# Laid over the method's recipe. A network with random weights needs layer norm: under batch norm without
# statistics, all images have nearly the same features, so that their codes are alike and nothing is learned.
TINY = (
    "backbone=test_efficientnet_ln", "pretrained=false", "images.size=32", "images.resize=null", "epochs=2",
    f"batch_size={BATCH}",
)  # fmt: skip


class MethodUnderTest:
    """A method under test. What several checks need is made once.

    Args:
        name: A registered method.
        settings: `KEY=VALUE` texts, as for `--set`.
        bits: Length of the codes.
    """

    def __init__(self, name: str, settings: Sequence[str] = (), bits: int = 32) -> None:
        self.name, self.settings, self.bits = name, settings, bits

    @cached_property
    def config(self) -> RunConfig:
        """The configuration of a run on the made-up images."""
        settings = (*TINY, *self.settings)
        return configure(
            self.name, synthetic_dataset(), bits=self.bits, seed=0, device="cpu", settings=settings
        )

    def build(self) -> HashMethod:
        """The untrained method."""
        return build_method(self.config)

    def train(self) -> HashMethod:
        """Train the method anew."""
        dataset = synthetic_dataset()  # stays in reach, labels and all, as in a run
        method = self.build()
        quiet = contextlib.redirect_stderr(io.StringIO())  # no progress of seconds
        with quiet, tempfile.TemporaryDirectory() as folder:
            train(method, dataset.train, self.config, Path(folder))
        return method

    @cached_property
    def trained(self) -> HashMethod:
        """The trained method, for all checks that leave it as it is."""
        return self.train()

    @cached_property
    def trained_again(self) -> HashMethod:
        """What a second training gives."""
        return self.train()

    def images(self, count: int) -> Tensor:
        """Images as they are encoded, [count, 3, size, size]."""
        images = TransformedImages(made_up_images(), self.config)
        return torch.stack([images[index] for index in range(count)])

    def views(self, method: HashMethod) -> list[Tensor]:
        """The views of a batch as the method is trained on, each [BATCH, 3, size, size]."""
        transform, images = ViewTransform(self.config.images, self.config.views), made_up_images()
        torch.manual_seed(0)
        return [
            torch.stack([transform(images[index]) for index in range(BATCH)]) for _ in range(method.views)
        ]

    def encode(self, method: HashMethod, *batches: Tensor) -> Tensor:
        """The values of batches of images, as in a run, one below the other."""
        with inference_mode(method, self.config):
            return torch.cat([method.encode(b.to(memory_format=torch.channels_last)) for b in batches])


def check_losses(subject: MethodUnderTest) -> None:
    """The losses are finite scalars, one of them "loss"; of a fitted method, the values are finite."""
    method = subject.build().train()
    if not isinstance(method, ShallowMethod):
        _losses(method, subject.views(method))
    elif not subject.encode(subject.trained, subject.images(BATCH)).isfinite().all():
        raise HashbenchError(
            "after fit, encode_features gives values that are not finite; mend what fit learns"
        )


def check_gradients(subject: MethodUnderTest) -> None:
    """The loss reaches every parameter that is not declared frozen."""
    method = subject.build().train()
    if isinstance(method, ShallowMethod):
        return  # is fitted
    with torch.no_grad():
        for parameter in method.parameters():
            # A layer that starts at 0 lets no gradient through.
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    torch.autograd.backward(_losses(method, subject.views(method))["loss"])
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
    """The values and the code of an image do not depend on what else is in the batch."""
    method, images = subject.trained, subject.images(64)
    values = subject.encode(method, images)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    alone = subject.encode(method, *torch.split(images[:BATCH], 1))
    shuffled = subject.encode(method, images[order])[order.argsort()]
    # Not exact, since rounding depends on the size of a batch.
    bound = 1e-3 * values.abs().max()
    for batch, other in (("alone", alone), ("in a shuffled batch", shuffled)):
        if (other - values[: len(other)]).abs().max() > bound:
            raise HashbenchError(
                f"an image has other values {batch} than in a batch of 64; encode each row from "
                "its image alone, without statistics of the batch and, in evaluation mode, without chance"
            )
    rows = [_array(method, row) for row in torch.split(values, 1)]
    if not np.array_equal(_array(method, values), np.concatenate(rows)):
        raise HashbenchError(
            "codes() depends on the other rows of values; make each code from its own row only"
        )


def check_bits(subject: MethodUnderTest) -> None:
    """Codes have the length that is asked for."""
    for bits in BITS:
        sized = MethodUnderTest(subject.name, subject.settings, bits)
        method = sized.build()
        if isinstance(method, ShallowMethod):
            method = sized.train()
        found = method.codes(sized.encode(method, subject.images(BATCH))).bits
        if found != bits:
            raise HashbenchError(
                f"{bits} bits were asked for and codes have {found}; use the argument `bits`"
            )


def check_save_load(subject: MethodUnderTest) -> None:
    """A new method with the stored state of a trained one gives the same codes."""
    loaded, images = subject.build(), subject.images(64)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_weights(file, subject.trained, subject.config)
        try:
            restore(loaded, load_file(file))
        except RuntimeError as error:
            raise HashbenchError(
                f"a new method does not take the stored state ({error}); "
                "make all parameters and buffers in __init__, in their final shape"
            ) from error
    before, after = (_array(m, subject.encode(m, images)) for m in (subject.trained, loaded))
    if not np.array_equal(before, after):
        raise HashbenchError(
            "a saved and loaded method gives other codes; keep all that encode needs in parameters and "
            "buffers (register_buffer), since nothing else is saved"
        )


def check_deterministic(subject: MethodUnderTest) -> None:
    """The same seed gives the same state, bit for bit."""
    if name := _difference(subject.trained, subject.trained_again):
        raise HashbenchError(
            f"trained twice with one seed, {name} differs; draw only from the generators of torch, "
            "numpy.random and random, which a run seeds"
        )


def check_no_labels(subject: MethodUnderTest) -> None:
    """Other labels of the same images change nothing."""
    if _difference(subject.trained, subject.trained_again):
        return  # labels or chance, who can tell; `deterministic` fails
    with _relabelled():
        other = subject.train()
    if name := _difference(subject.trained, other):
        raise HashbenchError(
            f"{name} differs when the same images have other labels; take out what looks for "
            "datasets or labels, since a method learns from images alone"
        )


def check_autocast(subject: MethodUnderTest) -> None:
    """In bfloat16, as on a GPU, losses and gradients are finite; of a fitted method, the values are."""
    method = subject.build().train()
    half = torch.autocast("cpu", torch.bfloat16)
    try:
        if isinstance(method, ShallowMethod):
            with half:
                computed = {"values": subject.encode(subject.trained, subject.images(BATCH))}
        else:
            with half:
                loss = _losses(method, subject.views(method))["loss"]
            torch.autograd.backward(loss)
            computed = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        for name, tensor in computed.items():
            if not tensor.isfinite().all():
                raise HashbenchError(f"{name} or its gradient is not finite")
    except Exception as error:
        raise HashbenchError(
            f"under torch.autocast to bfloat16: {_reason(error)}; compute what does not bear it on "
            "x.float(), within torch.autocast(x.device.type, enabled=False)"
        ) from error


CHECKS: dict[str, Callable[[MethodUnderTest], None]] = {
    "losses": check_losses,
    "gradients": check_gradients,
    "per_image": check_per_image,
    "bits": check_bits,
    "save_load": check_save_load,
    "deterministic": check_deterministic,
    "no_labels": check_no_labels,
    "autocast": check_autocast,
}


@dataclass(frozen=True)
class CheckResult:
    """How a check ended; a failed one has a message that says what is wrong and what to do."""

    name: str
    passed: bool
    message: str = ""


def check_method(name: str, settings: Sequence[str] = ()) -> list[CheckResult]:
    """Run all checks.

    Args:
        name: A registered method.
        settings: `KEY=VALUE` texts, as for `--set`.

    Raises:
        UsageError: There is no such method, setting or backbone.
        HashbenchError: The method's module, its recipe or the backbone's weights cannot be read.
    """
    subject = MethodUnderTest(name, settings)
    try:
        subject.build()
    except HashbenchError:
        raise  # a wrong name, setting or network is no fault of the method
    except Exception:  # but this is, and is said by the checks
        pass
    return [_result(check, subject) for check in CHECKS]


CLASSES = np.arange(144) % 6  # of the made-up images


@cache
def made_up_images() -> ArrayImages:
    """144 images, enough for 128 principal components: a pattern of colours for each class, under noise."""
    random = np.random.RandomState(0)
    patterns = random.randint(0, 256, (6, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pixels = patterns[CLASSES] + random.randint(-40, 41, (144, 32, 32, 3))
    return ArrayImages(pixels.clip(0, 255).astype(np.uint8), [f"image {index}" for index in range(144)])


def synthetic_dataset() -> Dataset:
    """A dataset whose parts have the same images, so that labels of training images are there to be found.

    It is made anew each time: while a method is trained, there must be no other labels than those of the run.
    """
    split = Split(made_up_images(), CLASSES)
    names = [f"class {index}" for index in range(6)]
    return Dataset.from_splits("made_up", "default", names, train=split, query=split, database=split)


@contextlib.contextmanager
def _relabelled() -> Iterator[None]:
    """While it lasts, every dataset has its labels in another order, whoever loads it."""
    make = Split.__init__

    def make_other(split: Split, images: Any, labels: NDArray[Any]) -> None:
        make(split, images, np.random.RandomState(0).permutation(labels))

    with mock.patch.object(Split, "__init__", make_other):
        yield


def _losses(method: HashMethod, views: Sequence[Tensor]) -> dict[str, Tensor]:
    losses = method.training_losses(*views)
    if not isinstance(losses, dict) or "loss" not in losses:
        raise HashbenchError(
            'the losses have no "loss"; return a dict with what is minimized under this name'
        )
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.ndim:
            found = f"has the shape {list(value.shape)}" if isinstance(value, Tensor) else f"is {value!r}"
            raise HashbenchError(f"{name!r} {found}; return tensors that are scalars, as from .mean()")
        if not value.isfinite():
            raise HashbenchError(
                f"{name!r} is {value.item()}; guard its divisions, roots, logarithms and powers"
            )
    return losses


def _array(method: HashMethod, values: Tensor) -> NDArray[Any]:
    """What the codes of values are compared by."""
    codes = method.codes(values)
    return codes.packed if isinstance(codes, BinaryCodes) else codes.reconstruct()


def _difference(one: HashMethod, other: HashMethod) -> str | None:
    """The first tensor in which the states of two methods differ."""
    state, others = one.state_dict(), other.state_dict()
    missing = state.keys() ^ others.keys()
    return next((n for n in state | others if n in missing or not torch.equal(state[n], others[n])), None)


def _result(check: str, subject: MethodUnderTest) -> CheckResult:
    try:
        CHECKS[check](subject)
    except Exception as error:  # whatever a method raises is its fault, and is said so
        return CheckResult(check, False, _reason(error))
    return CheckResult(check, True)


def _reason(error: Exception) -> str:
    kind = "" if isinstance(error, HashbenchError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
