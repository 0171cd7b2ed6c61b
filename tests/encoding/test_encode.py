"""Tests of encoding: a code depends on its image and not on the rest of the batch."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import run_config
from torch import Tensor, nn

from hashbench import ArrayImages, Backbone, HashbenchError, HashMethod, UsageError
from hashbench.encoding import features
from hashbench.encoding.encode import check_encoder, encode
from hashbench.encoding.features import TransformedImages, apply, inference_mode, precision
from hashbench.experiment.configure import resolve_run
from hashbench.experiment.weights import build_method
from hashbench.method.base import straight_through_sign

IMAGES = ArrayImages(
    np.random.RandomState(0).randint(0, 256, (11, 32, 32, 3), dtype=np.uint8), [f"i{n}" for n in range(11)]
)
CONFIG = run_config()


class Plain(HashMethod):
    """A method whose values are the first pixels of an image."""

    def __init__(self, change: Any = None) -> None:
        super().__init__(Backbone(nn.Identity(), image_size=32), 12, HashMethod.Hyperparameters())
        self.change = change or (lambda values: values)

    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def encode(self, images: Tensor) -> Tensor:
        values: Tensor = self.change(images.flatten(1)[:, :12])
        return values


def test_codes_do_not_depend_on_batch_size_or_order(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build_method(CONFIG)
    codes = encode(method, IMAGES, CONFIG, workers=0, task="t").to_signs()
    assert codes.shape == (11, 12)
    assert not method.training
    monkeypatch.setattr(features, "BATCH_SIZE", 3)
    np.testing.assert_array_equal(encode(method, IMAGES, CONFIG, workers=2, task="t").to_signs(), codes)
    order = np.arange(11)[::-1]
    np.testing.assert_array_equal(
        encode(method, IMAGES.subset(order), CONFIG, workers=0, task="t").to_signs(), codes[order]
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda values: values - values.mean(0), "size"),  # alone, every value is 0
        (lambda values: values + torch.arange(len(values))[:, None], "order"),
        (lambda values: values.sort(0).values, "order"),
    ],
)
@pytest.mark.parametrize("full", [set(), {"cpu"}])
def test_a_method_that_depends_on_its_batch_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: Any, what: str, full: set[str]
) -> None:
    monkeypatch.setattr(features, "_FULL_BATCHES", full)
    with pytest.raises(HashbenchError, match=rf"Plain.encode depends on the {what} of the batch"):
        encode(Plain(change), IMAGES, CONFIG, workers=0, task="t")


def test_a_method_that_does_not_depend_on_its_batch_passes() -> None:
    check_encoder(Plain(), IMAGES, CONFIG)


def test_full_batches_give_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = set()

    def sized(values: Tensor) -> Tensor:
        sizes.add(len(values))
        return values - 0.5

    codes = encode(Plain(sized), IMAGES, CONFIG, workers=0, task="t").to_signs()
    assert sizes == {8, 1, 11}
    sizes.clear()
    monkeypatch.setattr(features, "_FULL_BATCHES", {"cpu"})
    np.testing.assert_array_equal(encode(Plain(sized), IMAGES, CONFIG, workers=0, task="t").to_signs(), codes)
    assert sizes == {features.BATCH_SIZE}


def test_encoding_in_bfloat16_changes_values_near_0_alone() -> None:
    method = build_method(CONFIG)
    batch = torch.stack([*TransformedImages(IMAGES, CONFIG)])
    with inference_mode(method, CONFIG):
        exact = apply(method.encode, batch, CONFIG)
        rounded = apply(method.encode, batch, CONFIG, "bfloat16")
        with torch.autocast("cpu", torch.bfloat16):
            expected = method.encode(batch).float()
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, expected)
    assert not torch.equal(rounded, exact)
    run = run_config(evaluation={"precision_encode": "bfloat16"})
    signs = encode(method, IMAGES, run, workers=0, task="t").to_signs()
    np.testing.assert_array_equal(signs, np.where(expected.numpy() >= 0, 1, -1))
    near = exact.abs() < 0.05 * exact.abs().max()
    assert (torch.from_numpy(signs) == exact.sign())[~near].all()


def test_the_arithmetic_of_a_precision_does_not_depend_on_the_process() -> None:
    def arithmetic() -> tuple[str, bool, bool]:
        return (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.is_autocast_enabled("cpu"),
        )

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        outside = arithmetic()
        with inference_mode(nn.Identity(), CONFIG):
            assert arithmetic() == ("highest", False, False)
            for name, expected in {
                "float32": ("highest", False, False),
                "tf32": ("high", True, False),
                "bfloat16": ("highest", False, True),
            }.items():
                with precision(name, "cpu"):
                    assert arithmetic() == expected
                assert arithmetic() == ("highest", False, False)
        assert arithmetic() == outside
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_method_that_cannot_encode_in_bfloat16_fails_before_training() -> None:
    class Late(Plain):
        def encode(self, images: Tensor) -> Tensor:
            values = images.flatten(1) @ torch.ones(3 * 32 * 32, 12)
            return torch.zeros(values.shape).index_copy_(0, torch.arange(len(values)), values)

    check_encoder(Late(), IMAGES, CONFIG)
    with pytest.raises(RuntimeError, match="BFloat16"):
        check_encoder(Late(), IMAGES, run_config(evaluation={"precision_encode": "bfloat16"}))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_precision_of_encoding_needs_a_device_that_has_it(device: str) -> None:
    def resolved() -> str:
        flags = {"method": "wch", "dataset": "digits", "protocol": "default", "bits": 16, "seed": 0}
        flags["device"] = device
        return resolve_run(flags, ["precision_encode=tf32"]).evaluation.precision_encode

    if device == "cuda":
        assert resolved() == "tf32"
    else:
        with pytest.raises(UsageError, match="^precision_encode=tf32 needs a GPU; on a CPU choose float32"):
            resolved()


def test_zero_is_plus_one_and_nan_is_an_error() -> None:
    zeros = encode(Plain(torch.zeros_like), IMAGES, CONFIG, workers=0, task="t")
    assert (zeros.to_signs() == 1).all()
    with pytest.raises(HashbenchError, match="Plain: .*NaN") as error:
        encode(Plain(lambda values: values * float("nan")), IMAGES, CONFIG, workers=0, task="t")
    assert error.value.exit_code == 1


def test_codes_of_another_length_are_refused() -> None:
    with pytest.raises(HashbenchError, match="Plain: expected codes of 12 bits, got 7"):
        encode(Plain(lambda values: values[:, :7]), IMAGES, CONFIG, workers=0, task="t")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_codes_of_the_cpu() -> None:
    cpu = encode(build_method(CONFIG), IMAGES, CONFIG, workers=0, task="t").to_signs()
    on_gpu = CONFIG.model_copy(update={"device": "cuda"})
    gpu = encode(build_method(on_gpu), IMAGES, on_gpu, workers=0, task="t").to_signs()
    assert (cpu == gpu).mean() > 0.99


def test_straight_through_sign() -> None:
    values = torch.tensor([-0.5, 0.0, 2.0], requires_grad=True)
    signs = straight_through_sign(values)
    assert signs.tolist() == [-1, 1, 1]
    (signs * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1, 2, 3]
