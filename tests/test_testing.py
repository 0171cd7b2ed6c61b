"""Tests that each check of a method's contract finds its fault, and no other.

This file is also a plugin file, with one healthy method of each kind and, derived from these, one method for
each fault.
"""

import gc
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import hashbench
from hashbench import (
    Backbone,
    BinaryCodes,
    FeatureMethod,
    HashMethod,
    ShallowMethod,
    UsageError,
    gather,
    registry,
)
from hashbench.cli.app import main
from hashbench.codes import Codes
from hashbench.data.dataset import Split
from hashbench.method.base import TrainingSet, straight_through_sign
from hashbench.testing import CHECKS, check_method


class Healthy(FeatureMethod):
    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Any) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.head = nn.Linear(backbone.feature_dim, bits)

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        return {"loss": self.contrast(*(straight_through_sign(self.head(view)) for view in features))}

    def contrast(self, codes1: Tensor, codes2: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(codes1 @ codes2.T / self.bits, torch.arange(len(codes1)), reduction=reduction)

    def encode_features(self, features: Tensor) -> Tensor:
        values: Tensor = self.head(features)
        return values


class NotFinite(Healthy):
    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        losses = super().feature_losses(*features)
        return {"loss": losses["loss"] * torch.nan}


class Vector(Healthy):
    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        codes1, codes2 = (straight_through_sign(self.head(view)) for view in features)
        return {"loss": self.contrast(codes1, codes2, reduction="none")}


class Nameless(Healthy):
    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        return {"total": super().feature_losses(*features)["loss"]}


class Unused(Healthy):
    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Any) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.spare = nn.Linear(3, 3)


class CutOff(Healthy):
    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        return {"loss": self.contrast(*(torch.sign(self.head(view)) for view in features))}


class Declared(Unused):
    """A method without fault: it freezes what is not trained, and has a layer that is initialized with 0."""

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Any) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.spare.requires_grad_(False)
        self.inner, self.outer = nn.Linear(bits, 4, bias=False), nn.Linear(4, bits)
        nn.init.zeros_(self.outer.weight)

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        return {"loss": self.contrast(*(straight_through_sign(self.encode_features(v)) for v in features))}

    def encode_features(self, features: Tensor) -> Tensor:
        values = self.head(features)
        return values + self.outer(self.inner(values))  # type: ignore[no-any-return]


class OfTheBatch(Healthy):
    def encode_features(self, features: Tensor) -> Tensor:
        values = super().encode_features(features)
        return values - values.mean(0)


class OfTheOrder(Healthy):
    def encode_features(self, features: Tensor) -> Tensor:
        return super().encode_features(features) + torch.arange(len(features))[:, None]


class ByChance(Healthy):
    def encode_features(self, features: Tensor) -> Tensor:
        values = super().encode_features(features)
        return values + torch.randn_like(values)


class Median(Healthy):
    def codes(self, values: Tensor) -> Codes:
        return BinaryCodes.from_real(values - values.median(0).values)


class Short(Healthy):
    def encode_features(self, features: Tensor) -> Tensor:
        return super().encode_features(features)[:, :-1]


class Forgetful(Healthy):
    centre: Tensor | float = 0.0

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        self.centre = 10 * features[0].mean(0)
        return super().feature_losses(*features)

    def encode_features(self, features: Tensor) -> Tensor:
        return super().encode_features(features - self.centre)


class Late(Healthy):
    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        self.register_buffer("seen", features[0].mean(0))
        return super().feature_losses(*features)


class Unseeded(Healthy):
    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        chance = int.from_bytes(os.urandom(2), "big") / 2**16
        return super().feature_losses(*(view * (1 + chance) for view in features))


class Supervised(Healthy):
    """A method that learns labels if it can find them, and otherwise learns correctly."""

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Any) -> None:
        super().__init__(backbone, bits, hyperparameters)
        split = self.find()
        self.labels = None if split is None else torch.from_numpy(split.labels)

    def find(self) -> Split | None:
        raise NotImplementedError

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        if self.labels is None:
            return super().feature_losses(*features)
        return {"loss": F.cross_entropy(self.head(features[0]), self.labels[: len(features[0])])}


class FromMemory(Supervised):
    def find(self) -> Split | None:
        splits = (thing for thing in gc.get_objects() if type(thing) is Split)
        return next((split for split in splits if split.images.ids[0] == "image 0"), None)


class FromFrames(Supervised):
    def find(self) -> Split | None:
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
            if "dataset" in frame.f_locals:
                split: Split = frame.f_locals["dataset"].database
                return split
        return None


class FromTheRegistry(Supervised):
    def find(self) -> Split | None:
        return hashbench.load_dataset("digits").database


class FromQueries(Healthy):
    """A method that learns from the queries if it can find them, and otherwise learns correctly."""

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
            if "dataset" in frame.f_locals:
                first = torch.tensor(frame.f_locals["dataset"].query.images[0].getpixel((0, 0))) / 255
                return super().feature_losses(*(view * (1 + first.mean()) for view in features))
        return super().feature_losses(*features)


class HealthyPrepared(Healthy):
    """A method that preserves the similarities of the features before training."""

    uses_indices = True

    def prepare(self, training: TrainingSet) -> None:
        self.known = F.normalize(training.features())

    def feature_losses(self, *features: Tensor, indices: Tensor) -> dict[str, Tensor]:
        codes, known = self.head(features[0]), self.known[indices]
        return {"loss": F.mse_loss(codes @ codes.T / self.bits, known @ known.T)}


class PreparedAgain(HealthyPrepared):
    def feature_losses(self, *features: Tensor, indices: Tensor) -> dict[str, Tensor]:
        self.prepare(self.training_set)
        return super().feature_losses(*features, indices=indices)

    def prepare(self, training: TrainingSet) -> None:
        self.training_set = training
        super().prepare(training)


class ByPosition(HealthyPrepared):
    def feature_losses(self, *features: Tensor, indices: Tensor) -> dict[str, Tensor]:
        return super().feature_losses(*features, indices=torch.arange(len(indices)))


class HealthyImages(HashMethod):
    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Any) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.head = nn.Linear(backbone.feature_dim, bits)

    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        codes1, codes2 = (self.together(self.encode(view)) for view in views)
        return {"loss": F.cross_entropy(codes1 @ codes2.T / self.bits, torch.arange(len(codes1)))}

    def together(self, codes: Tensor) -> Tensor:
        return gather(codes)

    def encode(self, images: Tensor) -> Tensor:
        values: Tensor = self.head(self.backbone.pooled(images))
        return values


class Alone(HealthyImages):
    def together(self, codes: Tensor) -> Tensor:
        return codes


class RoundsToZero(HealthyImages):
    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        certain = torch.sigmoid(self.encode(views[0]) + 10)
        return {"loss": -(1 - certain).log().mean()}


class TakesFloatsOnly(HealthyImages):
    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        values = self.encode(views[0])
        return {"loss": values.square().mean(), "largest": torch.tensor(values.detach().numpy().max())}


class Unbuilt(Healthy):
    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Any) -> None:
        raise KeyError("bits")


class Raises(Healthy):
    def encode_features(self, features: Tensor) -> Tensor:
        raise KeyError("a\nb")


class HealthyFit(ShallowMethod):
    mean: Tensor

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Any) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.register_buffer("mean", torch.zeros(backbone.feature_dim))
        self.register_buffer("projection", torch.zeros(backbone.feature_dim, bits))

    def fit(self, features: Tensor) -> None:
        self.mean, self.projection = features.mean(0), torch.randn(self.projection.shape)

    def encode_features(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.projection


class ForgetfulFit(HealthyFit):
    scale = 1.0

    def fit(self, features: Tensor) -> None:
        super().fit(features)
        self.scale = -1.0

    def encode_features(self, features: Tensor) -> Tensor:
        return self.scale * super().encode_features(features)


class UnseededFit(HealthyFit):
    def fit(self, features: Tensor) -> None:
        super().fit(features)
        self.projection *= 1 + int.from_bytes(os.urandom(2), "big")


METHODS = {
    "healthy": Healthy,
    "declared": Declared,
    "not_finite": NotFinite,
    "vector": Vector,
    "nameless": Nameless,
    "unused": Unused,
    "cut_off": CutOff,
    "of_the_batch": OfTheBatch,
    "of_the_order": OfTheOrder,
    "by_chance": ByChance,
    "median": Median,
    "short": Short,
    "forgetful": Forgetful,
    "late": Late,
    "unseeded": Unseeded,
    "from_memory": FromMemory,
    "from_frames": FromFrames,
    "from_the_registry": FromTheRegistry,
    "from_queries": FromQueries,
    "healthy_prepared": HealthyPrepared,
    "prepared_again": PreparedAgain,
    "by_position": ByPosition,
    "healthy_images": HealthyImages,
    "alone": Alone,
    "rounds_to_zero": RoundsToZero,
    "takes_floats_only": TakesFloatsOnly,
    "unbuilt": Unbuilt,
    "raises": Raises,
    "healthy_fit": HealthyFit,
    "forgetful_fit": ForgetfulFit,
    "unseeded_fit": UnseededFit,
}


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.PLUGIN_FILES, "paths", [])
    registry.add_plugin_file(Path(__file__))


def failed(name: str) -> dict[str, str]:
    """Return the messages of the failed checks; the backbone is frozen to make training fast."""
    results = check_method(name, [] if name.endswith("_fit") else ["freeze_backbone=true"])
    return {result.name: result.message for result in results if not result.passed}


@pytest.mark.parametrize("name", ["healthy", "declared", "healthy_prepared", "healthy_images", "healthy_fit"])
def test_methods_without_fault(name: str) -> None:
    assert failed(name) == {}


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        ("unused", "gradients", "no gradient for spare.weight, spare.bias; use them"),
        ("cut_off", "gradients", "no gradient for head.weight, head.bias; .*straight_through_sign"),
        (
            "of_the_batch",
            "per_image",
            "different values alone than in a batch of 64; .*without batch statistics",
        ),
        ("of_the_order", "per_image", "different values alone"),
        ("median", "per_image", r"codes\(\) depends on the other rows"),
        ("short", "bits", "expected codes of 12 bits, got 11; use"),
        ("forgetful", "save_load", "gives different codes after saving and loading; keep .*register_buffer"),
        ("late", "save_load", r"cannot load the saved state .*\"seen\".*; create all .*in __init__"),
        ("unseeded", "deterministic", "head.weight differs after training twice with the same seed; draw"),
        ("from_memory", "no_labels", "head.weight differs when .* other labels and .*; remove"),
        ("from_frames", "no_labels", "head.weight differs when"),
        ("from_the_registry", "no_labels", "head.weight differs when"),
        ("from_queries", "no_labels", "head.weight differs when .* the queries are others"),
        ("prepared_again", "prepare", r"prepare\(\) is called 19 times; leave that to the training"),
        ("by_position", "prepare", "equal for other `indices`; look up"),
        ("alone", "gather", r"the loss of a batch is [\d.]+, but [\d.]+ if two .*; call hashbench.gather"),
        ("rounds_to_zero", "autocast", "to bfloat16: 'loss' is inf; .*; compute .*enabled=False"),
        ("takes_floats_only", "autocast", "to bfloat16: TypeError: .*BFloat16; compute"),
        ("forgetful_fit", "save_load", "gives different codes"),
        ("unseeded_fit", "deterministic", "projection differs"),
    ],
)
def test_a_fault_fails_its_check_and_no_other(name: str, check: str, message: str) -> None:
    found = failed(name)
    assert list(found) == [check]
    assert re.search(message, found[check]), found[check]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not_finite", "'loss' is nan; guard"),
        ("vector", r"expected a scalar tensor as 'loss', got shape \[16\]; reduce"),
        ("nameless", 'expected a dict with the key "loss"'),
    ],
)
def test_without_a_loss_nothing_can_be_trained(name: str, message: str) -> None:
    found = failed(name)
    assert re.match(message, found["losses"]), found["losses"]
    assert found.keys() == CHECKS.keys() - {"bits", "prepare", "gather"}


def test_what_encodes_by_chance() -> None:
    found = failed("by_chance")
    assert found.keys() == {"per_image", "save_load"}
    assert "without randomness" in found["per_image"]


def test_an_error_of_the_method_is_one_line() -> None:
    found = failed("raises")
    assert found == dict.fromkeys(("per_image", "bits", "save_load"), r"KeyError: 'a\nb'")
    found = failed("unbuilt")
    assert found.keys() == CHECKS.keys()
    assert found["bits"] == "KeyError: 'bits'"


def test_wrong_names_and_settings_are_no_faults_of_the_method() -> None:
    with pytest.raises(UsageError, match="unknown method 'helthy'; did you mean 'healthy'"):
        check_method("helthy")
    with pytest.raises(UsageError, match="unknown key 'epoch'"):
        check_method("healthy", ["epoch=1"])
    with pytest.raises(UsageError, match="unknown backbone 'test_efficentnet'; did you mean"):
        check_method("healthy", ["backbone=test_efficentnet"])


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["hashbench", "check-method", "unused", "--set", "freeze_backbone=true"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "losses │ passed" in shown
    assert "gradients │ failed: the loss has no gradient for spare.weight" in shown

    monkeypatch.setattr(sys, "argv", [*command, "--json"])
    with pytest.raises(SystemExit):
        main()
    rows = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in rows] == list(CHECKS)
    assert [row["check"] for row in rows if not row["passed"]] == ["gradients"]
