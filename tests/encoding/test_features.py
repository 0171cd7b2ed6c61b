"""Tests of features in memory: they are reused while network, settings and images are the same."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.configs import run_config
from torch import Tensor

from hashbench import ArrayImages, Backbone, BinaryCodes, ShallowMethod, create_backbone
from hashbench.config import RunConfig
from hashbench.encoding import features
from hashbench.encoding.encode import encode
from hashbench.encoding.features import FeatureExtractor
from hashbench.training.trainer import train

PIXELS = np.random.RandomState(0).randint(0, 256, (7, 32, 32, 3), dtype=np.uint8)
CONFIG = run_config()


def images() -> ArrayImages:
    return ArrayImages(PIXELS, [str(n) for n in range(len(PIXELS))])


@pytest.fixture
def backbone() -> Backbone:
    return create_backbone("test_resnet", image_size=32, pretrained=False)


def compute(backbone: Backbone, data: ArrayImages, config: RunConfig = CONFIG) -> Tensor:
    return FeatureExtractor(backbone, config, 0)(data, "t")


def test_features_are_those_of_each_image_and_computed_once(
    backbone: Backbone, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH_SIZE", 4)
    data = images()
    torch.manual_seed(0)
    first = compute(backbone, data)
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(0).get_state())  # nothing was drawn
    assert computed == [4, 3]
    assert compute(backbone, data) is first
    assert computed == [4, 3]
    alone = torch.cat([compute(backbone, data.subset(np.array([n]))) for n in range(7)])
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-5)


def test_features_are_recomputed_for_other_weights_settings_or_images(
    backbone: Backbone, computed: list[int]
) -> None:
    data = images()
    compute(backbone, data)
    with torch.no_grad():
        next(backbone.parameters()).add_(1e-3)
    compute(backbone, data)
    larger = CONFIG.model_copy(update={"images": CONFIG.images.model_copy(update={"size": 40})})
    assert compute(backbone, data, larger).shape == (7, backbone.feature_dim)
    exact = compute(backbone, images())
    assert computed == [7] * 4
    rounded = compute(backbone, data, run_config(evaluation={"precision_encode": "bfloat16"}))
    assert computed == [7] * 5
    assert (rounded.dtype, torch.equal(rounded, exact)) == (torch.float32, False)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)


def test_features_are_freed_with_their_images(backbone: Backbone) -> None:
    gc.collect()
    before = len(FeatureExtractor._in_memory)
    data = images()
    compute(backbone, data)
    assert len(FeatureExtractor._in_memory) == before + 1
    del data
    gc.collect()
    assert len(FeatureExtractor._in_memory) == before


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_method_that_computes_in_place_harms_only_itself(
    on_disk: bool, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_disk:
        monkeypatch.setenv("HASHBENCH_CACHE", str(tmp_path / "features"))

    class InPlace(ShallowMethod):
        def fit(self, features: Tensor) -> None:
            features -= features.mean(0)

        def encode_features(self, features: Tensor) -> Tensor:
            features *= -2
            return features[:, : self.bits]

    data = images()
    kept = compute(backbone, data).clone()
    method = InPlace(backbone, 12, InPlace.Hyperparameters())
    train(method, data, CONFIG, tmp_path)
    first = encode(method, data, CONFIG, workers=0, task="t")
    assert isinstance(first, BinaryCodes)
    again = encode(method, data, CONFIG, workers=0, task="t")
    assert isinstance(again, BinaryCodes)
    np.testing.assert_array_equal(first.packed, again.packed)
    torch.testing.assert_close(compute(backbone, data), kept, rtol=0, atol=0)
    torch.testing.assert_close(compute(backbone, images()), kept, rtol=0, atol=0)
