"""LSH, PCAH, PCA-RR, ITQ and SH, against the statements of their papers."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hashbench import Backbone, BinaryCodes, ShallowMethod, UsageError, create_method
from hashbench.method.linear import principal_components
from hashbench_methods.itq import iterative_quantization
from hashbench_methods.sh import smoothest_waves

CLASSICAL = ["itq", "lsh", "pcah", "pcarr", "sh", "sklsh", "sph", "agh"]
FEWER: dict[str, dict[str, int]] = {"agh": {"anchors": 80}, "sph": {"iterations": 5}}  # faster


class Values(nn.Module):
    """A network whose features are the first values of the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, : self.width] * self.weight


def method(name: str, features: int = 192, bits: int = 32, **settings: int) -> ShallowMethod:
    built = create_method(name, Backbone(Values(features), image_size=16), bits, **settings)
    assert isinstance(built, ShallowMethod)
    return built


def draw(n: int = 300, features: int = 192, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(3, 0.1, features)
    mixed = torch.linalg.qr(torch.randn(features, features, generator=generator)).Q
    return torch.randn(n, features, generator=generator) * spread @ mixed + 5


def fitted(name: str, features: Tensor, bits: int = 32, seed: int = 0, **settings: int) -> ShallowMethod:
    built = method(name, features.shape[1], bits, **settings)
    torch.manual_seed(seed)
    built.fit(features)
    return built


def signs(built: ShallowMethod, features: Tensor) -> np.ndarray:
    codes = built.codes(built.encode_features(features))
    assert isinstance(codes, BinaryCodes)
    return codes.to_signs()


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("bits", [12, 16, 32, 48, 64, 128])
def test_what_all_have_in_common(name: str, bits: int) -> None:
    features = draw()
    settings = FEWER.get(name, {})
    built = fitted(name, features, bits, **settings)
    codes = signs(built, features)
    assert codes.shape == (300, bits)
    assert (codes == signs(fitted(name, features, bits, **settings), features)).all()
    one_by_one = np.concatenate([signs(built, row[None]) for row in features[:20]])
    assert (one_by_one == codes[:20]).mean() > 0.999  # except for rounding at 0
    again = method(name, bits=bits, **settings)
    again.load_state_dict(built.state_dict())
    assert (signs(again, features) == codes).all()
    assert not any(p.requires_grad for p in built.parameters())
    assert built.state_dict()["backbone.network.weight"] == 1
    if name not in ("sklsh", "agh"):  # random thresholds, and eigenvectors that need not be balanced
        # No bit is nearly constant, although features are not centered at 0.
        assert np.abs(codes.mean(axis=0)).max() < 0.9


def test_lsh_distances_are_angles() -> None:
    features = draw(60, 20)
    built = fitted("lsh", features, bits=4000)
    codes = signs(built, features).astype(float)
    differing = (1 - codes @ codes.T / 4000) / 2
    unit = torch.nn.functional.normalize(features - features.mean(0), dim=1)
    angles = torch.arccos((unit @ unit.T).clamp(-1, 1)).numpy() / math.pi
    np.testing.assert_allclose(differing, angles, atol=4.5 * 0.5 / math.sqrt(4000))
    assert (signs(fitted("lsh", features, bits=4000, seed=1), features) != codes).any()


def test_principal_components_are_those_of_the_singular_values() -> None:
    features = draw(100, 24)
    mean, components = principal_components(features, 5)
    centred = features.double().numpy() - features.double().numpy().mean(0)
    expected = np.linalg.svd(centred)[2][:5].T
    torch.testing.assert_close(mean, features.mean(0))
    alignment = np.abs((components.double().numpy() * expected).sum(0))
    np.testing.assert_allclose(alignment, 1, atol=1e-5)
    projected = fitted("pcah", features, bits=5).encode_features(features).double().numpy()
    np.testing.assert_allclose(np.abs(projected), np.abs(centred @ expected), atol=1e-3)


def test_itq_comes_nearer_to_the_signs_with_each_step() -> None:
    values = draw(200, 16).double()
    values -= values.mean(0)
    losses = []
    for iterations in range(12):
        torch.manual_seed(0)
        rotation = iterative_quantization(values, iterations)
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(16, dtype=torch.float64))
        rotated = values @ rotation
        losses.append(float((torch.where(rotated >= 0, 1.0, -1.0) - rotated).square().sum()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.99 * losses[0]


def test_itq_finds_the_corners_of_a_turned_cube() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.where(torch.randn(400, 4, generator=generator) >= 0, 1.0, -1.0)
    turned = corners @ torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    codes = signs(fitted("itq", turned, bits=4), turned)
    matches = np.abs(codes.T @ corners.numpy()) / 400
    np.testing.assert_allclose(np.sort(matches.max(axis=0)), 1)


def test_itq_folds_components_and_rotation_of_50_steps_into_one_projection() -> None:
    features = draw(100, 24).double()
    mean, components = principal_components(features, 6)
    torch.manual_seed(0)
    rotation = iterative_quantization((features - mean) @ components, 50)
    projection = fitted("itq", features.float(), bits=6).get_buffer("projection")
    torch.testing.assert_close(projection, (components @ rotation).float())


def test_spectral_hashing_takes_the_smoothest_waves() -> None:
    side, frequency = smoothest_waves(torch.tensor([4.0, 2.1, 1.0]), 7)
    # By hand: k / r rises as 1/4, 1/2.1, 2/4, 3/4, 2/2.1, 1/1 and 4/4 (the first side first).
    assert side.tolist() == [0, 1, 0, 0, 1, 0, 2]
    torch.testing.assert_close(
        frequency, math.pi * torch.tensor([1 / 4, 1 / 2.1, 2 / 4, 3 / 4, 2 / 2.1, 1, 1])
    )


@pytest.mark.parametrize(("width", "bits"), [(5, 12), (24, 16), (24, 48)])
def test_spectral_hashing_as_its_authors_release_states_it(width: int, bits: int) -> None:
    """Compare with the released code, where the number of modes per side is proportional to its length."""
    features = draw(80, width)
    values = features.double().numpy()
    values = values - values.mean(0)
    values = values @ np.linalg.svd(values)[2][: min(bits, width)].T
    values -= values.min(0)
    ranges = values.max(0)
    modes = [
        mode * np.eye(len(ranges))[side]
        for side, length in enumerate(ranges)
        for mode in range(1, math.ceil((bits + 1) * length / ranges.max()))
    ]
    frequencies = sorted((mode * math.pi / ranges for mode in modes), key=lambda f: float((f**2).sum()))
    waves = np.stack([np.sin(math.pi / 2 + values * f).prod(1) for f in frequencies[:bits]], 1)
    found = fitted("sh", features, bits).encode_features(features).numpy()
    turned = np.sign((found * waves).sum(0))  # the sign of a component is arbitrary, and flips its odd waves
    np.testing.assert_allclose(found, turned * waves, atol=1e-4)


def test_a_wave_is_positive_and_negative_in_turn() -> None:
    """Bit k of a side changes k times, at equal steps, for features uniform in a box."""
    features = torch.stack(
        torch.meshgrid(torch.linspace(0, 4, 41), torch.linspace(0, 1, 11), indexing="ij"), -1
    )
    built = fitted("sh", features.flatten(0, 1) + 7, bits=5)
    bits = signs(built, features.flatten(0, 1) + 7).reshape(41, 11, 5)
    along, across = bits[:, 0], bits[0]
    assert [int((np.diff(along[:, bit]) != 0).sum()) for bit in range(3)] == [1, 2, 3]
    assert (across[:, :3] == across[0, :3]).all()
    changes = np.flatnonzero(np.diff(along[:, 1])) / 10
    np.testing.assert_allclose(changes, [1, 3], atol=0.11)  # at a quarter and three quarters


def test_pcarr_is_itq_before_its_first_step() -> None:
    features = draw(100, 24)
    values = [fitted(name, features, bits=6, **settings).encode_features(features) for name, settings in (
        ("pcarr", {}), ("itq", {"iterations": 0}), ("pcah", {}),
    )]  # fmt: skip
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[0].norm(dim=1), values[2].norm(dim=1))  # it is a rotation
    assert values[0].std(0).max() < values[2].std(0).max()


@pytest.mark.parametrize("name", ["pcah", "pcarr", "itq"])
def test_more_bits_than_components(name: str) -> None:
    with pytest.raises(UsageError, match="expected at most 20 bits, the dimension of the features, got 32"):
        fitted(name, draw(300, 20))
    with pytest.raises(UsageError, match="at least 32 principal components, but 20 images with 40 features"):
        fitted(name, draw(20, 40))
    with pytest.raises(
        UsageError, match="at least 16 principal components, but 10 images with 192 features have 9;"
    ):
        fitted(name, draw(10), bits=16)
    assert signs(fitted("sh", draw(300, 20)), draw(300, 20)).shape == (300, 32)  # several waves per component
