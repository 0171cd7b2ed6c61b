"""Presets of backbones: their geometry, their pixels, and weights from files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers.configs import run_config
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from hashbench import Backbone, HashbenchError, UsageError, create_backbone, load_dataset
from hashbench.backbones.pixels import pixel_note, with_backbone
from hashbench.backbones.presets import IMAGENET, PRESETS, pixel_statistics
from hashbench.config import ImageConfig
from hashbench.experiment.configure import changes, configure
from hashbench.experiment.weights import build_backbone, describe_weights
from hashbench.images.transforms import test_transform as transform_of
from hashbench.results.record import run_identity

# Number of tokens of an image, their width, and the width of the pooled vector.
GEOMETRY = {
    "vit-b": (196, 768, 768),
    "dinov2-s": (256, 384, 384),
    "dinov2-b": (256, 768, 768),
    "dinov2-l": (256, 1024, 1024),
    "dinov3-b": (196, 768, 768),
    "clip-b": (196, 768, 768),
    "siglip2-b": (196, 768, 768),
    "vgg16": (49, 512, 4096),
    "resnet50": (49, 2048, 2048),
    "efficientnet_lite0": (4, 1280, 1280),
}


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build timm models without memory, which only compute shapes."""
    create = timm.create_model

    def without_memory(name: str, **arguments: Any) -> nn.Module:
        with torch.device("meta"):
            return create(name, **arguments).to("meta")

    zeros = torch.zeros
    monkeypatch.setattr(timm, "create_model", without_memory)
    monkeypatch.setattr(torch, "zeros", lambda *size, **rest: zeros(*size, **{**rest, "device": "meta"}))


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "efficientnet_lite0"])
@pytest.mark.usefixtures("meta")
def test_the_geometry_of_a_preset(name: str) -> None:
    backbone = create_backbone(name, image_size=PRESETS[name].size, pretrained=False)
    tokens, dim, feature_dim = GEOMETRY[name]
    images = torch.empty(2, 3, PRESETS[name].size, PRESETS[name].size, device="meta")
    assert backbone.tokens(images).shape == (2, tokens, dim)
    assert backbone.pooled(images).shape == (2, feature_dim)


def test_the_geometry_of_the_built_in_network() -> None:
    backbone = create_backbone("efficientnet_lite0", image_size=PRESETS["efficientnet_lite0"].size)
    assert backbone.tokens(torch.rand(1, 3, 64, 64)).shape == (1, *GEOMETRY["efficientnet_lite0"][:2])


@pytest.mark.parametrize("name", PRESETS)
def test_the_pixels_of_a_preset_are_those_of_timm(name: str) -> None:
    config = configure("itq", load_dataset("digits"), bits=16, seed=0, device="cpu",
                       settings=[f"backbone={name}", "images.size=224"])  # fmt: skip
    model = "tf_efficientnet_lite0" if name == "efficientnet_lite0" else config.backbone.name
    of_weights = timm.get_pretrained_cfg(model)
    expected = timm.data.create_transform(
        (3, 224, 224), crop_pct=1.0, interpolation="bilinear", mean=of_weights.mean, std=of_weights.std
    )
    photograph = Image.fromarray(load_sample_images().images[0])
    torch.testing.assert_close(transform_of(config.images)(photograph), expected(photograph))


def test_pooled_vectors() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = timm.create_model(  # with a class token and four registers
        "vit_tiny_patch16_224", num_classes=0, img_size=32, reg_tokens=4
    ).eval()
    sequence = network.forward_features(images)
    assert sequence.shape[1] == 1 + 4 + 4
    head, cls, mean = (Backbone(network, 32, pool=pool).eval() for pool in ("head", "cls", "mean"))
    torch.testing.assert_close(head.tokens(images), sequence[:, 5:])
    torch.testing.assert_close(cls.pooled(images), sequence[:, 0])
    torch.testing.assert_close(head.pooled(images), sequence[:, 0])
    torch.testing.assert_close(mean.pooled(images), sequence[:, 5:].mean(1))
    for stage, name in ((None, "test_resnet"), (-1, "test_vit")):
        with pytest.raises(UsageError, match="no class token here; choose pool=head or pool=mean"):
            create_backbone(name, image_size=32, pretrained=False, stage=stage, pool="cls")


def test_a_preset_brings_its_size_and_its_pixels() -> None:
    digits = load_dataset("digits")

    def images(method: str, *settings: str) -> tuple[ImageConfig, str | None, dict[str, Any]]:
        config = configure(method, digits, bits=16, seed=0, device="cpu", settings=settings)
        return config.images, pixel_note(config), changes(config)

    clip = timm.get_pretrained_cfg("vit_base_patch16_clip_224.openai")
    found, note, changed = images("itq", "backbone=clip-b")
    assert (found.size, found.mean, found.std) == (224, clip.mean, clip.std)
    assert note is None
    assert changed == {"backbone.name": "vit_base_patch16_clip_224.openai", "images.size": 224}
    found, note, changed = images("itq", "backbone=clip-b", "images.size=96", "images.mean=[0, 0, 0]")
    assert (found.size, found.mean, found.std) == (96, (0, 0, 0), clip.std)
    assert note is not None
    assert "by the mean (0, 0, 0) and std (0.269, 0.261, 0.276)" in note
    assert changed["images.mean"] == [0, 0, 0]
    _, _, changed = images("itq", "backbone=vit-b", "backbone.pool=cls", "images.size=64")
    assert changed == {
        "backbone.name": "vit_base_patch16_224.orig_in21k", "backbone.pool": "cls", "images.size": 64,
    }  # fmt: skip
    found, note, changed = images("itq", "backbone=efficientnet_lite0")  # the recipe's own
    assert (found.size, note, changed) == (32, None, {})


def test_a_recipe_that_pins_the_pixels_says_so() -> None:
    """WCH normalizes by the statistics of ImageNet on purpose, as its released code does."""
    digits = load_dataset("digits")
    settings = ["backbone=siglip2-b", *(f"images.{key}=pretrained" for key in ("mean", "std"))]
    config = configure("wch", digits, bits=16, seed=0, device="cpu", settings=settings)
    assert (config.images.mean, config.images.std) == ((0.5,) * 3, (0.5,) * 3)
    pinned = config.model_copy(update={"images": ImageConfig()})
    note = pixel_note(pinned)
    assert note is not None
    assert "0.485, 0.456, 0.406" in note
    assert "were trained with (0.5, 0.5, 0.5)" in note
    assert pixel_statistics("resnet18_cifar") == IMAGENET


def original_vit(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the weights of a small timm ViT under the names and in the layout of the original release."""
    values = {name: tensor.numpy() for name, tensor in tensors.items()}
    dim = values["cls_token"].shape[-1]
    heads = dim // 64 or 1
    found = {
        "cls": values["cls_token"],
        "embedding/kernel": values["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": values["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": values["pos_embed"],
        "Transformer/encoder_norm/scale": values["norm.weight"],
        "Transformer/encoder_norm/bias": values["norm.bias"],
    }
    for block in range(sum(name.endswith("norm1.weight") for name in values)):
        old, new = f"blocks.{block}.", f"Transformer/encoderblock_{block}/"
        for norm, number in (("norm1", 0), ("norm2", 2)):
            found[f"{new}LayerNorm_{number}/scale"] = values[f"{old}{norm}.weight"]
            found[f"{new}LayerNorm_{number}/bias"] = values[f"{old}{norm}.bias"]
        attention = f"{new}MultiHeadDotProductAttention_1/"
        parts = zip(
            ("query", "key", "value"),
            np.split(values[f"{old}attn.qkv.weight"], 3),
            np.split(values[f"{old}attn.qkv.bias"], 3),
            strict=True,
        )
        for name, weight, bias in parts:
            found[f"{attention}{name}/kernel"] = weight.T.reshape(dim, heads, dim // heads)
            found[f"{attention}{name}/bias"] = bias.reshape(heads, dim // heads)
        projection = values[f"{old}attn.proj.weight"].T.reshape(heads, dim // heads, dim)
        found[f"{attention}out/kernel"] = projection
        found[f"{attention}out/bias"] = values[f"{old}attn.proj.bias"]
        for layer, number in (("fc1", 0), ("fc2", 1)):
            found[f"{new}MlpBlock_3/Dense_{number}/kernel"] = values[f"{old}mlp.{layer}.weight"].T
            found[f"{new}MlpBlock_3/Dense_{number}/bias"] = values[f"{old}mlp.{layer}.bias"]
    return found


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_of_a_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"vit{suffix}"
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    if suffix == ".npz":
        np.savez(file, **original_vit(network.state_dict()))
    else:
        save_file(network.state_dict(), file)
    images = torch.rand(2, 3, 64, 64)
    backbone = create_backbone("test_vit", image_size=64, weights=file).eval()
    torch.testing.assert_close(backbone.tokens(images), network.forward_features(images)[:, 1:])
    assert create_backbone("test_vit", image_size=96, weights=file).eval().tokens(
        torch.rand(1, 3, 96, 96)
    ).shape == (1, 36, 64)  # interpolated positions


def test_files_of_weights_that_cannot_be_used(tmp_path: Path) -> None:
    build: Callable[..., Any] = create_backbone
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK nothing")
    for file, error, message in (
        (tmp_path / "none.npz", UsageError, "there is no such file"),
        (tmp_path / "weights.pth", UsageError, "expected FILE.safetensors or FILE.npz; convert it"),
        (
            other,
            HashbenchError,
            r"test_vit \(it has no weights for .*\); choose the backbone of the file",
        ),
        (damaged, HashbenchError, "cannot be loaded into test_vit"),
    ):
        with pytest.raises(error, match=message):
            build("test_vit", image_size=32, weights=file)
    with pytest.raises(UsageError, match="efficientnet_lite0 takes no file"):
        build("efficientnet_lite0", image_size=32, weights=other)
    with pytest.raises(UsageError, match="expected the content with the SHA-256 00, got"):
        build("test_vit", image_size=32, weights=other, weights_sha256="00")


def test_a_run_knows_its_weights_by_their_content(tmp_path: Path) -> None:
    network = timm.create_model("test_vit", num_classes=0, img_size=32)
    files = [tmp_path / "one.safetensors", tmp_path / "copy.safetensors"]
    for file in files:
        save_file(network.state_dict(), file)
    settings = ["backbone=test_vit", "images.size=32"]
    configs = [
        configure("itq", load_dataset("digits"), bits=16, seed=0, device="cpu",
                  settings=[*settings, f"backbone.weights={file}"])
        for file in files
    ]  # fmt: skip
    dumps = [config.model_dump(mode="json") for config in configs]
    assert dumps[0] != dumps[1]
    identities = [run_identity(dump, "split", None, "code", {}) for dump in dumps]
    assert identities[0] == identities[1]
    assert changes(configs[0]) == {
        "backbone.name": "test_vit", "backbone.weights": str(files[0]),
    }  # fmt: skip
    assert describe_weights(configs[0]) == {"weights_sha256": configs[0].backbone.weights_sha256}
    save_file({name: tensor + 1 for name, tensor in network.state_dict().items()}, files[0])
    with pytest.raises(UsageError, match="expected the content with the SHA-256"):
        build_backbone(configs[0])


def test_a_recipe_may_name_a_preset_and_a_file() -> None:
    recipe = {"backbone": {"name": "vit-b", "pool": "cls"}, "images": {"size": 96}}
    assert with_backbone(recipe, {"backbone": {"name": "vit-b"}}) == {
        "backbone": {"name": "vit_base_patch16_224.orig_in21k", "pool": "cls"},
        "images": {"size": 96, "mean": (0.5,) * 3, "std": (0.5,) * 3},
    }


def test_a_file_of_weights_is_not_asked_for_on_the_network(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str) -> None:
        raise HashbenchError(f"no weights of {name}")

    monkeypatch.setattr("hashbench.experiment.plan.require_weights", offline)
    save_file({"weight": torch.zeros(2)}, tmp_path / "own.safetensors")
    command = ["run", "--method", "itq", "--dataset", "cifar10", "--data-root", tmp_path, "--dry-run"]
    said = [
        cli(*command, "--backbone", "clip-b", *settings)
        for settings in ((), ("--set", f"backbone.weights={tmp_path / 'own.safetensors'}"))
    ]
    assert ["no weights of" in done.out + done.err for done in said] == [True, False]


def test_the_record_describes_the_built_in_weights() -> None:
    config = run_config(backbone={"name": "efficientnet_lite0", "pretrained": True})
    facts = describe_weights(config)
    assert facts["weights_licence"] == "apache-2.0"
    assert facts["weights_sha256"].startswith("57934424")
    assert describe_weights(run_config()) == {}  # without pretrained weights


def test_the_list_of_presets(cli: Callable[..., Any]) -> None:
    shown = cli("backbones").out
    assert max(map(len, shown.splitlines())) <= 80
    for name in PRESETS:
        assert f"\n{name} " in shown
    rows = json.loads(cli("backbones", "--json").out)
    assert rows[-1]["backbone"] == "efficientnet_lite0"
    assert rows[-1]["weights"].endswith("efficientnet-lite0-57934424.pth")
