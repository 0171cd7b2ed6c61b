"""AGH, SpH, SKLSH, IMH, PQ and OPQ, against golden values and the statements of their papers."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hashbench import Backbone, ProductCodes, ShallowMethod, UsageError, create_method
from hashbench.method.anchors import anchor_bandwidth, kmeans
from hashbench.method.product import assign_codewords, fit_codebooks, product_codes
from hashbench_methods.agh import anchor_weights, layer_thresholds, spectral_projection
from hashbench_methods.imh import inductive_embedding
from hashbench_methods.opq import optimized_rotation
from hashbench_methods.sph import balanced_spheres

Golden = Callable[[str], dict[str, Tensor]]
FORWARD = {"rtol": 1e-4, "atol": 2e-5}


def fitted(name: str, features: Tensor, bits: int, seed: int = 0, **settings: Any) -> ShallowMethod:
    """Fit a method to features, which its backbone would return."""
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(3, features.shape[1])), image_size=1)
    built = create_method(name, backbone, bits, **settings)
    assert isinstance(built, ShallowMethod)
    torch.manual_seed(seed)
    built.fit(features)
    return built


def draw(n: int, features: int, clusters: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(clusters, features, generator=generator)
    return centres[torch.arange(n) % clusters] + torch.randn(n, features, generator=generator)


def signs(values: Tensor) -> Tensor:
    return torch.where(values > 0, 1, -1).to(torch.int8)


# Anchor graph hashing


@pytest.fixture
def graph(golden: Golden) -> dict[str, Tensor]:
    """Load the values that the formulas of anchor graph hashing give."""
    return golden("agh")


def test_the_anchor_graph(graph: dict[str, Tensor]) -> None:
    nearest, bandwidth = int(graph["nearest_anchors"]), float(graph["bandwidth"])
    weights = anchor_weights(graph["features"], graph["anchors"], nearest, bandwidth)
    torch.testing.assert_close(weights, graph["anchor_weights"], **FORWARD)
    projection, eigenvalues = spectral_projection(weights, 6)
    torch.testing.assert_close(eigenvalues, graph["eigenvalues"], **FORWARD)
    torch.testing.assert_close(projection, graph["projection"], **FORWARD)
    torch.testing.assert_close(weights @ projection, graph["embedding"], **FORWARD)
    query = anchor_weights(graph["query"], graph["anchors"], nearest, bandwidth) @ projection
    torch.testing.assert_close(query, graph["query_embedding"], **FORWARD)
    positive, negative = layer_thresholds(weights, (weights @ projection)[:, :3])
    torch.testing.assert_close(positive, graph["two_layer_threshold_positive"], **FORWARD)
    torch.testing.assert_close(negative, graph["two_layer_threshold_negative"], **FORWARD)


@pytest.mark.parametrize(("layers", "key"), [(1, "code_one_layer"), (2, "code_two_layer")])
def test_agh_has_the_codes_of_the_graph(
    graph: dict[str, Tensor], layers: int, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hashbench_methods.agh.method.kmeans", lambda *_: graph["anchors"])
    monkeypatch.setattr("hashbench_methods.agh.method.anchor_bandwidth", lambda *_: graph["bandwidth"])
    built = fitted("agh", graph["features"], 6, layers=layers, anchors=12)
    for part, prefix in (("features", ""), ("query", "query_")):
        assert torch.equal(signs(built.encode_features(graph[part])), graph[prefix + key])


def test_anchor_weights_one_by_one() -> None:
    features, anchors = draw(9, 5), draw(7, 5, seed=1)
    weights = anchor_weights(features, anchors, 2, 10.0)
    for image, row in zip(features, weights, strict=True):
        squares = (image - anchors).square().sum(1)
        nearest = squares.argsort()[:2]
        expected = torch.zeros(7)
        expected[nearest] = torch.exp(-squares[nearest] / 10) / torch.exp(-squares[nearest] / 10).sum()
        torch.testing.assert_close(row, expected)
    torch.testing.assert_close(anchor_weights(features, anchors, 2, 1e-6).sum(1), torch.ones(9))
    width = anchor_bandwidth(features, anchors, 2)
    assert float(width) == pytest.approx(
        np.mean([(image - anchors).norm(dim=1).sort().values[1] for image in features]) ** 2, rel=1e-5
    )
    torch.testing.assert_close(
        anchor_weights(features, anchors, 2), anchor_weights(features, anchors, 2, width)
    )
    precise = features.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: anchor_weights(x, anchors.double(), 2, 10.0), precise)


def test_thresholds_have_the_smallest_objective() -> None:
    """Compare with a search over the pairs of thresholds for which the values sum to 0."""
    features = draw(80, 6).double()
    weights = anchor_weights(features, kmeans(features, 12))
    embedding = weights @ spectral_projection(weights, 3)[0]
    laplacian = torch.eye(80) - weights @ (weights / weights.sum(0)).T
    for y, positive, negative in zip(embedding.T, *layer_thresholds(weights, embedding), strict=True):

        def objective(first: Tensor, y: Tensor = y) -> tuple[float, float]:
            above = y > 0
            second = (first * above.sum() - y.abs().sum()) / (~above).sum()
            g = torch.where(above, y - first, second - y)
            assert abs(float(g.sum())) < 1e-9
            return float(g @ laplacian @ g), float(second)

        least, second = objective(positive)
        assert second == pytest.approx(float(negative))
        assert all(least < objective(positive + shift)[0] for shift in (-0.1, -0.01, 0.01, 0.1))


@pytest.mark.parametrize("layers", [1, 2])
def test_agh_on_a_graph_in_parts_and_with_few_images(layers: int) -> None:
    far = draw(60, 8) + 1000 * (torch.arange(60) % 2)[:, None]  # two components
    values = fitted("agh", far, 8, layers=layers, anchors=20).encode_features(far)
    assert values.isfinite().all()
    torch.testing.assert_close(values[:, : 8 // layers].sum(0), torch.zeros(8 // layers), rtol=0, atol=2e-2)
    assert len(torch.unique(signs(values[:, 0]))) == 2
    few = draw(15, 8)
    assert fitted("agh", few, 8, layers=layers).encode_features(few).isfinite().all()
    assert fitted("agh", few.repeat(3, 1), 8, layers=layers).encode_features(few).isfinite().all()


def test_agh_says_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="an even number of bits for two layers, got 7"):
        fitted("agh", draw(40, 8), 7)
    with pytest.raises(UsageError, match="more anchors than the 32 eigenvectors, got 20"):
        fitted("agh", draw(40, 8), 32, layers=1, anchors=20)


# Spherical hashing


def test_hyperspheres_are_balanced_and_independent() -> None:
    features = draw(400, 24, clusters=400)
    built = fitted("sph", features, 12)
    inside = (built.encode_features(features) >= 0).double()
    assert (inside.sum(0) == 200).all()
    shared = torch.stack([inside[:, i] @ inside[:, j] for i, j in itertools.combinations(range(12), 2)])
    assert (shared - 100).abs().mean() <= 10
    assert shared.std(correction=0) <= 15
    start = fitted("sph", features, 12, iterations=0)
    assert (start.encode_features(features) >= 0).sum(0).tolist() == [200] * 12
    radius, pivot = built.get_buffer("radii")[3], built.get_buffer("pivots")[3]
    expected = radius - (features[7] - pivot).norm()
    torch.testing.assert_close(built.encode_features(features)[7, 3], expected)


def test_a_step_of_the_hyperspheres_as_the_paper_states_it() -> None:
    features, pivots = draw(50, 4).double(), draw(5, 4, seed=1).double()
    distances = torch.cdist(features, pivots)
    inside = distances <= distances.sort(dim=0).values[24]
    forces = torch.zeros(5, 4, dtype=torch.float64)
    for i, j in itertools.permutations(range(5), 2):
        shared = (inside[:, i] & inside[:, j]).sum()
        forces[i] += 0.5 * (shared - 50 / 4) / (50 / 4) * (pivots[i] - pivots[j])
    moved, radii = balanced_spheres(features, pivots, 1, 0.0, 0.0)
    torch.testing.assert_close(moved, pivots + forces / 5)
    assert ((torch.cdist(features, moved) <= radii).sum(0) == 25).all()


# Shift-invariant kernels


def test_hamming_distances_of_sklsh_depend_on_the_kernel() -> None:
    """Compare with the expected distances in the paper, a series in the kernel at m times the difference."""
    features = draw(40, 10)
    bits = 8000
    built = fitted("sklsh", features, bits, bandwidth=0.8)
    codes = signs(built.encode_features(features)).float()
    differing = (1 - codes @ codes.T / bits) / 2
    squares = torch.cdist(features, features).square()
    width = 0.8 * torch.pdist(features).mean()
    m = torch.arange(1, 200)[:, None, None]
    kernels = torch.exp(-(m**2) * squares / (2 * width**2))
    expected = (8 / math.pi**2 * (1 - kernels) / (4 * m**2 - 1)).sum(0)
    torch.testing.assert_close(differing, expected, rtol=0, atol=4.5 * 0.5 / math.sqrt(bits))


# Inductive manifold hashing


def test_the_inductive_embedding(golden: Golden) -> None:
    values = golden("imh")
    given = values["query"], values["base_points"], values["base_embedding"]
    found = inductive_embedding(*given, int(values["neighbours"]), float(values["bandwidth"]))
    torch.testing.assert_close(found, values["embedding"], **FORWARD)
    assert torch.equal(signs(found), values["code"])
    error = 1 - torch.cosine_similarity(found, signs(found).float()).mean()
    torch.testing.assert_close(error, values["quantization_error"], **FORWARD)
    weights = anchor_weights(*given[:2], int(values["neighbours"]), float(values["bandwidth"]))
    torch.testing.assert_close(weights.gather(1, values["neighbour_index"]), values["weights"], **FORWARD)
    torch.testing.assert_close(inductive_embedding(*given), values["embedding_bandwidth512"], **FORWARD)
    # Where the exponentials underflow, the nearest base point decides.
    nearest = values["base_embedding"][values["neighbour_index"][:, 0]]
    torch.testing.assert_close(inductive_embedding(*given, bandwidth=1e-4), nearest, rtol=1e-3, atol=1e-3)


def test_imh_embeds_base_points_where_tsne_does() -> None:
    features = draw(30, 12)
    built = fitted("imh", features, 6, bandwidth=0.01)
    points, embedding = built.get_buffer("base_points"), built.get_buffer("base_embedding")
    assert points.shape == (400, 12)
    assert points[:30].isfinite().all()
    torch.testing.assert_close(built.encode_features(points[:30]), embedding[:30])
    assert built.encode_features(features).isfinite().all()


# Product quantization


def reconstruction_error(features: Tensor, codebooks: Tensor) -> float:
    codes = product_codes(assign_codewords(features, codebooks), codebooks)
    return float((features - torch.from_numpy(codes.reconstruct())).square().sum(1).mean())


@pytest.mark.parametrize(("name", "rotated"), [("pq", ""), ("opq", "rotated_")])
def test_codes_and_distances_of_faiss(golden: Golden, name: str, rotated: str) -> None:
    values = golden(name)
    data, query = values[f"{rotated}data"], values[f"{rotated}query"]
    if rotated:
        torch.testing.assert_close(values["data"] @ values["rotation"].T, data, **FORWARD)
    built = fitted(name, values["data"], 16, **({"iterations": 0} if rotated else {}))
    built.get_buffer("codebooks").copy_(values["codebooks"])
    codes = built.codes(data)
    assert isinstance(codes, ProductCodes)
    np.testing.assert_array_equal(codes.indices, values["codes"])
    assert reconstruction_error(data, values["codebooks"]) == pytest.approx(
        float(values["reconstruction_error"]), rel=1e-4
    )
    words = built.codes(query)
    assert isinstance(words, ProductCodes)
    np.testing.assert_array_equal(words.indices, values["query_codes"])
    np.testing.assert_array_equal(built.query_codes(query), query)
    for vectors, kind in ((query.numpy(), "asymmetric"), (words.reconstruct(), "symmetric")):
        found = codes.tables(vectors)[:, np.arange(4), codes.indices].sum(axis=-1)
        np.testing.assert_allclose(found, values[f"distances_{kind}_squared"], rtol=1e-4, atol=1e-4)


def test_errors_are_those_of_faiss(golden: Golden) -> None:
    errors = {}
    for name in ("pq", "opq"):
        values = golden(name)
        built = fitted(name, values["data"], 16)
        rows = built.encode_features(values["data"])
        errors[name] = reconstruction_error(rows, built.get_buffer("codebooks"))
        assert errors[name] == pytest.approx(float(values["reconstruction_error"]), rel=0.15)
    assert errors["opq"] < errors["pq"]


def test_the_rotation_of_opq_lowers_the_error() -> None:
    features = draw(150, 8)
    errors = []
    for iterations in (0, 1, 4, 16):
        torch.manual_seed(0)
        rotation = optimized_rotation(features, 4, 4, iterations)
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(8), rtol=0, atol=1e-5)
        errors.append(reconstruction_error(features @ rotation, fit_codebooks(features @ rotation, 4, 4)))
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("name", ["pq", "opq"])
def test_sizes_that_do_not_fit(name: str) -> None:
    features = draw(40, 10)
    built = fitted(name, features, 12)  # 3 books, so that two zeros are appended
    values = built.encode_features(features)
    assert values.shape == (40, 12)
    torch.testing.assert_close(torch.pdist(values), torch.pdist(features))
    few = fitted(name, features[:9], 8, words=16)
    codes = few.codes(few.encode_features(features[:9]))
    assert isinstance(codes, ProductCodes)
    assert codes.indices.max() < 9
    with pytest.raises(UsageError, match=f"{name}: expected a multiple of 4 bits"):
        fitted(name, features, 10)
