"""WCH against the values of its published code."""

from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench import Backbone, create_method
from hashbench.method.base import straight_through_sign
from hashbench_methods import wch

FORWARD = {"rtol": 1e-4, "atol": 1e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture(scope="module")
def module(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    return golden("wch_module")


def head_of(values: dict[str, Tensor], prefix: str = "fc_norm_", join: str = "_") -> torch.nn.Module:
    norm, fc1, fc2 = prefix.rstrip("_."), "fc1", "fc2"
    head = wch.method.HashHead(values[f"{fc1}{join}weight"].shape[1], values[f"{fc2}{join}weight"].shape[0])
    head.load_state_dict(
        {
            f"{ours}.{part}": values[f"{theirs}{join}{part}"]
            for ours, theirs in (("norm", norm), ("fc1", fc1), ("fc2", fc2))
            for part in ("weight", "bias")
        }
    )
    return head


def test_mutual_attention(module: dict[str, Tensor]) -> None:
    attended = wch.mutual_attention(module["tokens1"], module["tokens2"])
    torch.testing.assert_close(attended, (module["attended1"], module["attended2"]), **FORWARD)


def test_patch_weights(module: dict[str, Tensor]) -> None:
    weights = wch.patch_weights(module["attended1"], module["attended2"])
    torch.testing.assert_close(weights, module["weights"], **FORWARD)
    raw = wch.patch_weights(module["tokens1"], module["tokens2"])
    torch.testing.assert_close(raw, module["weights_without_attention"], **FORWARD)


def test_columns_are_divided_and_not_rows(module: dict[str, Tensor]) -> None:
    patches1, patches2 = (torch.nn.functional.normalize(module[f"tokens{n}"], dim=-1) for n in (1, 2))
    similarity = torch.einsum("nid,mjd->nmij", patches1, patches2).amax(-1).mean(-1)
    softmax = torch.softmax(similarity / 0.2, dim=1)
    columns, rows = softmax / softmax.diagonal()[None, :], softmax / softmax.diagonal()[:, None]
    torch.testing.assert_close(columns, module["weights_without_attention"], **FORWARD)
    assert not torch.allclose(rows, module["weights_without_attention"], rtol=1e-3)


def test_temperature_of_the_attention(module: dict[str, Tensor]) -> None:
    tokens1, tokens2 = module["tokens1"], module["tokens2"]
    attended = wch.mutual_attention(tokens1, tokens2, temperature=0.25)
    for own, other, result in ((tokens1, tokens2, attended[0]), (tokens2, tokens1, attended[1])):
        for image in range(len(own)):
            for position, asking in enumerate(other[image]):
                scores = F.cosine_similarity(own[image], asking[None], dim=1) / 0.25
                expected = (scores.exp() / scores.exp().sum()) @ own[image]
                torch.testing.assert_close(result[image, position], expected, **FORWARD)


def test_temperature_of_the_patch_weights(module: dict[str, Tensor]) -> None:
    """Derive the weights at another temperature from the golden ones at 0.2, as powers of them."""
    other = wch.patch_weights(module["attended1"], module["attended2"], temperature=0.5)
    at_02 = module["weights"]  # exp(s / 0.2) up to a factor for each column, hence for the cross ratios
    expected = (at_02 / at_02.diagonal()[:, None]).log() * 0.2 / 0.5

    def cross_ratios(logarithms: Tensor) -> Tensor:
        return logarithms - logarithms[:1] - logarithms[:, :1] + logarithms[0, 0]

    torch.testing.assert_close(cross_ratios(other.log()), cross_ratios(expected), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.diagonal(), torch.ones(6))


def test_temperature_of_the_loss(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("wch_loss")
    codes1, codes2, weights = values["hash1"], values["hash2"], values["weights"]
    total = 0.0
    for i, code in enumerate(codes1):
        logits = (code * codes2).mean(1) / 0.7
        total -= float((weights[i] * (logits - logits.logsumexp(0))).sum())
    expected = total / len(codes1) + float(codes1.mean(0).square().mean() - codes1.square().mean())
    loss = wch.weighted_contrastive_loss(codes1, codes2, weights, temperature=0.7)
    torch.testing.assert_close(loss, torch.tensor(expected), **FORWARD)


def test_training_step_forward_and_backward(module: dict[str, Tensor]) -> None:
    tokens1 = module["tokens1"].clone().requires_grad_()
    tokens2 = module["tokens2"].clone().requires_grad_()
    head = head_of(module)
    attended1, attended2 = wch.mutual_attention(tokens1, tokens2)
    weights = wch.patch_weights(attended1, attended2)
    tanh1, tanh2 = head(attended1), head(attended2)
    codes1, codes2 = straight_through_sign(tanh1), straight_through_sign(tanh2)
    loss = wch.weighted_contrastive_loss(codes1, codes2, weights)
    loss.backward()

    torch.testing.assert_close((tanh1, tanh2), (module["tanh1"], module["tanh2"]), **FORWARD)
    torch.testing.assert_close((codes1, codes2), (module["hash1"], module["hash2"]), **FORWARD)
    torch.testing.assert_close(loss, module["loss"], **FORWARD)
    torch.testing.assert_close(tokens1.grad, module["grad_tokens1"], **BACKWARD)
    torch.testing.assert_close(tokens2.grad, module["grad_tokens2"], **BACKWARD)
    torch.testing.assert_close(head.fc1.weight.grad, module["grad_fc1_weight"], **BACKWARD)
    torch.testing.assert_close(head.fc2.weight.grad, module["grad_fc2_weight"], **BACKWARD)
    torch.testing.assert_close(head.norm.weight.grad, module["grad_fc_norm_weight"], **BACKWARD)


def test_loss_alone(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("wch_loss")
    codes1, codes2 = values["hash1"].requires_grad_(), values["hash2"].requires_grad_()
    loss = wch.weighted_contrastive_loss(codes1, codes2, values["weights"])
    loss.backward()
    torch.testing.assert_close(loss, values["loss"], **FORWARD)
    torch.testing.assert_close(codes1.grad, values["grad_hash1"], **BACKWARD)
    torch.testing.assert_close(codes2.grad, values["grad_hash2"], **BACKWARD)


@pytest.fixture(scope="module")
def network(golden: Callable[[str], dict[str, Tensor]]) -> tuple[wch.WCH, dict[str, Tensor]]:
    values = golden("wch_network")
    vit = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2, num_classes=0
    )
    vit.load_state_dict({key.removeprefix("vit."): v for key, v in values.items() if key.startswith("vit.")})
    method = create_method("wch", Backbone(vit, image_size=32), bits=16)
    assert isinstance(method, wch.WCH)
    method.head = head_of(values, "fc_norm.", ".")
    return method.eval(), values


def test_whole_network(network: tuple[wch.WCH, dict[str, Tensor]]) -> None:
    method, values = network
    tokens = wch.mutual_attention(*(method.backbone.tokens(values[f"images{n}"]) for n in (1, 2)))
    codes = [straight_through_sign(method.head(view)) for view in tokens]
    torch.testing.assert_close(codes, [values["hash1"], values["hash2"]], **FORWARD)
    torch.testing.assert_close(wch.patch_weights(*tokens), values["weights"], **FORWARD)
    losses = method.training_losses(values["images1"], values["images2"])
    torch.testing.assert_close(losses["loss"].detach(), values["loss"], **FORWARD)
    parts = losses["contrastive"] + losses["balance"]
    torch.testing.assert_close(parts, values["loss"], **FORWARD)


def test_code_of_an_image_alone(network: tuple[wch.WCH, dict[str, Tensor]]) -> None:
    method, values = network
    with torch.no_grad():
        codes = method.codes(method.encode(values["images1"])).to_signs()
    np.testing.assert_array_equal(codes, values["codes1"].numpy())


def test_switches(network: tuple[wch.WCH, dict[str, Tensor]]) -> None:
    method, values = network
    views = values["images1"], values["images2"]
    tokens = [method.backbone.tokens(view) for view in views]

    def loss(**switches: bool) -> Tensor:
        changed = create_method("wch", method.backbone, bits=16, **switches)
        changed.head = method.head
        return changed.eval().training_losses(*views)["loss"]

    codes = [straight_through_sign(method.head(t)) for t in tokens]
    unattended = wch.weighted_contrastive_loss(*codes, wch.patch_weights(*tokens))
    torch.testing.assert_close(loss(mutual_attention=False), unattended)

    codes = [straight_through_sign(method.head(t)) for t in wch.mutual_attention(*tokens)]
    unweighted = wch.weighted_contrastive_loss(*codes, torch.eye(6))
    torch.testing.assert_close(loss(patch_weighting=False), unweighted)

    attended = wch.mutual_attention(*tokens)
    similarities = {
        "nearest_patch": [[F.cosine_similarity(p[:, None], q[None], dim=-1).mean() for q in attended[1]]
                          for p in attended[0]],
        "local_similarity": [[F.cosine_similarity(p.mean(0), q.mean(0), dim=0) for q in attended[1]]
                             for p in attended[0]],
    }  # fmt: skip
    for switch, rows in similarities.items():
        weights = torch.softmax(torch.stack([torch.stack(row) for row in rows]) / 0.2, dim=1)
        expected = wch.weighted_contrastive_loss(*codes, weights / weights.diagonal())
        torch.testing.assert_close(loss(**{switch: False}), expected)

    whole, unbalanced = loss(), loss(balance=False)
    torch.testing.assert_close(whole - unbalanced, wch.method.bit_balance(codes[0]))


def test_temperatures_reach_the_loss(network: tuple[wch.WCH, dict[str, Tensor]]) -> None:
    method, values = network
    changed = create_method(
        "wch", method.backbone, bits=16,
        attention_temperature=0.5, weight_temperature=0.4, similarity_temperature=0.6,
    )  # fmt: skip
    changed.head = method.head
    views = values["images1"], values["images2"]
    tokens = wch.mutual_attention(*(method.backbone.tokens(view) for view in views), 0.5)
    codes = [straight_through_sign(method.head(view)) for view in tokens]
    expected = wch.weighted_contrastive_loss(*codes, wch.patch_weights(*tokens, 0.4), 0.6)
    torch.testing.assert_close(changed.eval().training_losses(*views)["loss"], expected)


def test_the_released_head() -> None:
    torch.manual_seed(0)
    head = wch.method.HashHead(768, 64)
    assert head.norm.eps == 1e-6
    for layer, fan_out in ((head.fc1, 1024), (head.fc2, 64)):  # kaiming uniform by fan-out; normal biases
        assert layer.weight.abs().max().item() == pytest.approx((6 / fan_out) ** 0.5, rel=0.01)
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
        assert layer.bias.std().item() == pytest.approx(1, rel=0.2)


def test_patch_weights_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randn(7, 5, 8, generator=generator) for _ in range(2)]
    target = torch.randn(7, 7, generator=generator)

    def run() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in tokens]
        weights = wch.patch_weights(*leaves)
        (weights * target).sum().backward()
        return [weights.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    whole = run()
    sizes = []
    original = torch.split

    def spy(patches: Tensor, size: int) -> tuple[Tensor, ...]:
        sizes.extend(len(part) * 7 * 5 for part in original(patches, size))
        return original(patches, size)

    monkeypatch.setattr(torch, "split", spy)
    monkeypatch.setattr(wch.method, "MAX_PAIRS", 150)
    torch.testing.assert_close(run(), whole)
    assert len(sizes) > 7
    assert max(sizes) <= 150


def test_a_vision_transformer_gives_patch_tokens_only() -> None:
    backbone = Backbone(timm.create_model("test_vit", num_classes=0, img_size=64), image_size=64)
    assert backbone.tokens(torch.zeros(2, 3, 64, 64)).shape == (2, 16, 64)
