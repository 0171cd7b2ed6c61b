"""TBH against the values of its published code."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench import Backbone, create_method
from hashbench_methods.tbh import TBH, code_adjacency, normalized_adjacency

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-4}  # gradients of the reconstruction reach tens
LAYERS = {
    "encoder_fc1": "encoder",
    "encoder_binary": "binary",
    "encoder_continuous": "continuous",
    "gcn": "gcn",
    "decoder_fc1": "decoder.0",
    "decoder_fc2": "decoder.2",
    "discriminator_binary": "binary_discriminator",
    "discriminator_continuous": "continuous_discriminator",
}


@pytest.fixture
def values(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Load the published values."""
    return golden("tbh")


def tbh(values: dict[str, Tensor], **settings: float) -> TBH:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 20)), image_size=4)
    method = create_method("tbh", backbone, 8, hidden=14, continuous=12, **settings)
    assert isinstance(method, TBH)
    for released, name in LAYERS.items():
        parts = {part: values[f"{released}_{part}"] for part in ("weight", "bias")}
        method.get_submodule(name).load_state_dict(parts)
    return method


def released_losses(method: TBH, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return method.losses(values["features"], values["random_binary"], values["random_continuous"])


def test_graph_of_the_codes(values: dict[str, Tensor]) -> None:
    adjacency = code_adjacency(values["code"])
    torch.testing.assert_close(adjacency, values["adjacency"], **FORWARD)
    torch.testing.assert_close(code_adjacency(values["code"], 1), values["adjacency_paper"], **FORWARD)
    torch.testing.assert_close(8 * (1 - code_adjacency(values["code"], 1)), values["hamming_distance"])
    torch.testing.assert_close(normalized_adjacency(adjacency), values["normalized_adjacency"], **FORWARD)


def test_a_training_step(values: dict[str, Tensor]) -> None:
    method = tbh(values)
    losses = released_losses(method, values)
    losses["loss"].backward()
    assert list(losses) == ["loss", "reconstruction", "actor", "critic"]
    torch.testing.assert_close(losses["reconstruction"].detach(), values["rec_loss"], **FORWARD)
    torch.testing.assert_close(losses["actor"].detach(), values["actor_loss"], **FORWARD)
    torch.testing.assert_close(losses["critic"].detach(), values["critic_loss"], **FORWARD)
    adversarial = values["adv_loss_binary"] + values["adv_loss_continuous"]
    torch.testing.assert_close(losses["critic"].detach(), adversarial, **FORWARD)
    for released, name in LAYERS.items():
        layer = method.get_submodule(name)
        for part in ("weight", "bias"):
            gradient = layer.get_parameter(part).grad
            torch.testing.assert_close(gradient, values[f"grad_{released}_{part}"], **BACKWARD)


@pytest.mark.parametrize(("player", "layers"), [("actor", [*LAYERS][:6]), ("critic", [*LAYERS][6:])])
def test_each_player_learns_from_its_own_loss(
    values: dict[str, Tensor], player: str, layers: list[str]
) -> None:
    method = tbh(values)
    released_losses(method, values)[player].backward()
    reached = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert reached == {f"{LAYERS[layer]}.{part}" for layer in layers for part in ("weight", "bias")}


def test_both_bottlenecks(values: dict[str, Tensor]) -> None:
    method = tbh(values)
    features = values["features"]
    logits = method.encode_features(features)
    torch.testing.assert_close(logits.detach(), values["logits"], **FORWARD)
    torch.testing.assert_close((logits >= 0).float(), values["code_eval"])
    codes, bottleneck = (part.detach() for part in method._bottlenecks(features))
    torch.testing.assert_close(codes, values["code"])
    torch.testing.assert_close(bottleneck, values["bottleneck"], **FORWARD)
    continuous = torch.sigmoid(method.continuous(method.encoder(features).relu()))
    torch.testing.assert_close(continuous.detach(), values["continuous"], **FORWARD)
    reconstruction = method.decoder(bottleneck).relu()
    torch.testing.assert_close(reconstruction.detach(), values["reconstruction"], **FORWARD)
    for rows, layer, score in (
        (codes, method.binary_discriminator, "score_code"),
        (bottleneck, method.continuous_discriminator, "score_bottleneck"),
        (values["random_binary"], method.binary_discriminator, "score_random_binary"),
        (values["random_continuous"], method.continuous_discriminator, "score_random_continuous"),
    ):
        torch.testing.assert_close(torch.sigmoid(layer(rows)).detach(), values[score], **FORWARD)
    for rows, layer, key in (
        (codes, method.binary_discriminator, "nonsaturating_binary"),
        (bottleneck, method.continuous_discriminator, "nonsaturating_continuous"),
    ):
        torch.testing.assert_close(-F.logsigmoid(layer(rows)).mean().detach(), values[key], **FORWARD)


def test_the_port_without_nonlinearities(values: dict[str, Tensor]) -> None:
    """FIRe's port has no sigmoid on the continuous bottleneck, and no ReLU on the reconstruction."""
    method = tbh(values, relu_reconstruction=False)
    continuous = method.continuous(method.encoder(values["features"]).relu())
    torch.testing.assert_close(continuous.detach(), values["fire_continuous"], **FORWARD)
    graph = normalized_adjacency(code_adjacency(values["code"]))
    bottleneck = torch.sigmoid(graph @ method.gcn(continuous))
    torch.testing.assert_close(bottleneck.detach(), values["fire_bottleneck"], **FORWARD)
    reconstruction = method.decoder(bottleneck)
    torch.testing.assert_close(reconstruction.detach(), values["fire_reconstruction"], **FORWARD)
    error = (reconstruction - values["features"]).square().sum().detach() / 2
    torch.testing.assert_close(error, values["fire_rec_loss"], **FORWARD)
    torch.testing.assert_close(error / 6, values["fire_rec_loss_per_row"], **FORWARD)


class Port(TBH):
    """TBH without the sigmoid of the continuous bottleneck."""

    def _bottlenecks(self, features: Tensor) -> tuple[Tensor, Tensor]:
        codes, _ = super()._bottlenecks(features)
        graph = normalized_adjacency(code_adjacency(codes))
        return codes, torch.sigmoid(graph @ self.gcn(self.continuous(self.encoder(features).relu())))


def test_a_training_step_of_the_port(values: dict[str, Tensor]) -> None:
    """Its discriminators recognize own rows and not random ones, as ours do with negated weights."""
    method = tbh(values, relu_reconstruction=False)
    method.__class__ = Port
    discriminators = {"binary": method.binary_discriminator, "continuous": method.continuous_discriminator}
    with torch.no_grad():
        for layer in discriminators.values():
            layer.weight.neg_()
            layer.bias.neg_()
    losses = released_losses(method, values)
    losses["loss"].backward()
    torch.testing.assert_close(losses["critic"].detach(), values["fire_adv_loss"], **FORWARD)
    torch.testing.assert_close(losses["critic"].detach(), values["fire_critic_loss"], **FORWARD)
    torch.testing.assert_close(losses["actor"].detach(), values["fire_actor_loss"], **FORWARD)
    for name in ("encoder_binary", "encoder_continuous", "gcn"):
        gradient = method.get_submodule(LAYERS[name]).get_parameter("weight").grad
        torch.testing.assert_close(gradient, values[f"fire_grad_{name}_weight"], **BACKWARD)
    for name, layer in discriminators.items():
        assert layer.weight.grad is not None
        torch.testing.assert_close(
            -layer.weight.grad, values[f"fire_grad_discriminator_{name}_weight"], **BACKWARD
        )
    probability = torch.sigmoid(method.encode_features(values["features"])).detach()
    torch.testing.assert_close(probability, values["fire_probability_eval"], **FORWARD)


def test_the_reconstruction_may_be_negative(values: dict[str, Tensor]) -> None:
    method = tbh(values, relu_reconstruction=False)
    _, bottleneck = method._bottlenecks(values["features"])
    error = (method.decoder(bottleneck) - values["features"]).square().sum() / 2
    torch.testing.assert_close(released_losses(method, values)["reconstruction"], error)


@pytest.mark.parametrize("power", [1.0, 1.4])
def test_adjacency_pair_by_pair(power: float) -> None:
    codes = torch.randint(2, (7, 12), generator=torch.Generator().manual_seed(0)).float()
    codes[3], codes[4] = codes[2], 1 - codes[2]  # equal codes and opposite ones
    codes.requires_grad_()
    adjacency = code_adjacency(codes, power)
    adjacency.sum().backward()
    expected = torch.zeros(7, 12)
    for i in range(7):
        for j in range(7):
            distance = float((codes[i] != codes[j]).sum())
            assert float(adjacency[i, j]) == pytest.approx((1 - distance / 12) ** power, abs=1e-6)
            if distance > 0:  # of both (i, j) and (j, i)
                slope = -power * (1 - distance / 12) ** (power - 1) / 12
                expected[i] += 2 * slope * (1 - 2 * codes[j].detach())
    torch.testing.assert_close(codes.grad, expected)


def test_a_bit_has_the_gradient_of_its_probability(values: dict[str, Tensor]) -> None:
    method = tbh(values)
    codes, _ = method._bottlenecks(values["features"])
    codes.sum().backward()
    probability = torch.sigmoid(values["logits"])
    torch.testing.assert_close(method.binary.bias.grad, (probability * (1 - probability)).sum(0))


def test_power_and_weight_reach_the_loss(values: dict[str, Tensor]) -> None:
    released = released_losses(tbh(values), values)
    other = released_losses(tbh(values, power=1, adversarial_weight=0), values)
    assert other["reconstruction"] != released["reconstruction"]
    torch.testing.assert_close(other["actor"], other["reconstruction"])


def test_initialization_and_random_draws() -> None:
    torch.manual_seed(0)
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 20)), image_size=4)
    before = backbone.network[1].bias.clone()
    method = create_method("tbh", backbone, 16)
    assert isinstance(method, TBH)
    torch.testing.assert_close(backbone.network[1].bias, before)
    assert method.encoder.weight.abs().max().item() == pytest.approx((6 / (20 + 1024)) ** 0.5, rel=0.01)
    assert not method.encoder.bias.any()
    seen: list[Tensor] = []
    method.losses = lambda *tensors: seen.extend(tensors)  # type: ignore[assignment]
    method.feature_losses(torch.randn(200, 20))
    _, bits, values = seen
    assert (bits.shape, values.shape) == ((200, 16), (200, 512))
    assert set(bits.unique().tolist()) == {0, 1}
    assert bits.mean().item() == pytest.approx(0.5, abs=0.05)
    assert values.min().item() == pytest.approx(0, abs=0.01)
    assert values.max().item() == pytest.approx(1, abs=0.01)


def test_features_are_standardized_by_those_of_the_training_set(values: dict[str, Tensor]) -> None:
    class Training:
        """Features with another mean and deviation than the golden ones."""

        def __len__(self) -> int:
            return 6

        def features(self) -> Tensor:
            return 3 * values["features"] + 2

    method, plain = tbh(values, standardize=True), tbh(values)
    method.prepare(Training())
    plain.prepare(Training())
    shifted = values["features"] - values["features"].mean(0)
    standardized = shifted / shifted.square().mean().sqrt()
    expected = plain.encode_features(standardized)
    torch.testing.assert_close(method.encode_features(Training().features()), expected)
    torch.manual_seed(0)
    loss = method.feature_losses(Training().features())["loss"]
    torch.manual_seed(0)
    torch.testing.assert_close(loss, plain.feature_losses(standardized)["loss"])
