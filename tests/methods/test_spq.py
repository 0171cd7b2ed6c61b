"""SPQ against the values of its published code."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench import Backbone, ProductCodes, UsageError, create_backbone, create_method
from hashbench_methods.spq import SPQ, assign_codewords, cross_quantized_contrastive_loss, soft_quantize

FORWARD = {"rtol": 1e-4, "atol": 1e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture
def values(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Load the published values, in which all books are one matrix."""
    return golden("spq")


def books(matrix: Tensor) -> Tensor:
    """Reshape [words, books · dim] to [books, words, dim]."""
    return torch.stack(matrix.split(8, dim=1))


def spq(bits: int, backbone: Backbone | None = None, **settings: int) -> SPQ:
    backbone = backbone or Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 20)), image_size=4)
    method = create_method("spq", backbone, bits, **settings)
    assert isinstance(method, SPQ)
    return method


def test_a_training_step(values: dict[str, Tensor]) -> None:
    matrix = values["codebooks"].clone().requires_grad_()
    xa, xb = (values[name].clone().requires_grad_() for name in ("xa", "xb"))
    za, zb = (soft_quantize(x, books(matrix)) for x in (xa, xb))
    loss = cross_quantized_contrastive_loss(xa, xb, za, zb)
    loss.backward()
    torch.testing.assert_close(za.detach(), values["za"], **FORWARD)
    torch.testing.assert_close(zb.detach(), values["zb"], **FORWARD)
    torch.testing.assert_close(loss.detach(), values["loss"], **FORWARD)
    torch.testing.assert_close(matrix.grad, values["grad_codebooks"], **BACKWARD)
    torch.testing.assert_close(xa.grad, values["grad_xa"], **BACKWARD)
    torch.testing.assert_close(xb.grad, values["grad_xb"], **BACKWARD)


def test_codes_of_the_gallery(values: dict[str, Tensor]) -> None:
    codes = assign_codewords(values["gallery"], books(values["codebooks"]))
    torch.testing.assert_close(codes, values["gallery_codes"])


def test_codes_in_parts_are_the_same(values: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = torch.cdist

    def spy(pieces: Tensor, codebooks: Tensor, **options: str) -> Tensor:
        distances = original(pieces, codebooks, **options)
        sizes.append(distances.numel())
        return distances

    monkeypatch.setattr(torch, "cdist", spy)
    monkeypatch.setattr("hashbench.method.product.MAX_DISTANCES", 200)  # 3 rows of 4 books of 16 words
    codes = assign_codewords(values["gallery"], books(values["codebooks"]))
    torch.testing.assert_close(codes, values["gallery_codes"])
    assert sizes == [192] * 13 + [64]


def test_the_nearest_codeword_of_each_book() -> None:
    generator = torch.Generator().manual_seed(0)
    features, codebooks = torch.randn(30, 6, generator=generator), torch.randn(3, 4, 2, generator=generator)
    codebooks[1, 2] = codebooks[1, 0]  # the first of equal codewords is chosen
    codes = assign_codewords(features, codebooks)
    for row, numbers in zip(features, codes, strict=True):
        for book in range(3):
            distances = [
                float(((row[2 * book : 2 * book + 2] - word) ** 2).sum()) for word in codebooks[book]
            ]
            assert numbers[book] == int(np.argmin(distances))
    hard = soft_quantize(features, codebooks, scale=1e6)
    chosen = torch.stack([codebooks[book, codes[:, book]] for book in range(3)], 1).flatten(1)
    torch.testing.assert_close(hard, chosen, rtol=1e-3, atol=1e-3)


def test_scale_of_the_soft_quantization() -> None:
    generator = torch.Generator().manual_seed(0)
    features, codebooks = torch.randn(5, 6, generator=generator), torch.randn(3, 4, 2, generator=generator)
    quantized = soft_quantize(features, codebooks, scale=0.8)
    for row, result in zip(features, quantized, strict=True):
        for book in range(3):
            piece = slice(2 * book, 2 * book + 2)
            weights = torch.stack(
                [(-0.8 * ((row[piece] - word) ** 2).sum()).exp() for word in codebooks[book]]
            )
            torch.testing.assert_close(result[piece], weights / weights.sum() @ codebooks[book])


def test_both_settings_reach_the_loss() -> None:
    method = create_method(
        "spq", Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 20)), 4), 16,
        quantization_scale=0.7, temperature=0.2,
    )  # fmt: skip
    views = torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(0))
    xa, xb = (method.encode_features(view) for view in views)
    za, zb = (soft_quantize(x, method.codebooks, 0.7) for x in (xa, xb))
    expected = cross_quantized_contrastive_loss(xa, xb, za, zb, 0.2)
    torch.testing.assert_close(method.feature_losses(*views)["loss"], expected)


def test_the_loss_pair_by_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    xa, xb, za, zb = torch.randn(4, 3, 5, generator=generator)
    total = 0.0
    for rows in (torch.cat([xa, zb]), torch.cat([xb, za])):
        for i in range(6):
            logits = [F.cosine_similarity(rows[i], rows[j], dim=0) / 0.2 for j in range(6) if j != i]
            positive = F.cosine_similarity(rows[i], rows[(i + 3) % 6], dim=0) / 0.2
            total += float(torch.stack(logits).logsumexp(0) - positive) / 6
    loss = cross_quantized_contrastive_loss(xa, xb, za, zb, temperature=0.2)
    torch.testing.assert_close(loss, torch.tensor(total))


@pytest.mark.parametrize(
    ("bits", "words", "expected"), [(12, 16, 3), (32, 16, 8), (32, 256, 4), (6, 2, 6), (18, 512, 2)]
)
def test_bits_are_books_times_the_bits_of_a_word(bits: int, words: int, expected: int) -> None:
    method = spq(bits, words=words, dim=4)
    assert method.codebooks.shape == (expected, words, 4)
    codes = method.codes(method.encode(torch.randn(5, 3, 4, 4)))
    kind = np.uint8 if words <= 256 else np.uint16
    assert (codes.bits, codes.indices.dtype, codes.indices.shape) == (bits, kind, (5, expected))


def test_bits_that_make_no_books() -> None:
    with pytest.raises(
        UsageError, match="spq: expected a multiple of 4 bits, as books of 16 words have, got 18"
    ):
        spq(18)
    with pytest.raises(UsageError, match="words=12.*power of 2"):
        spq(32, words=12)


def test_the_released_network() -> None:
    backbone = create_backbone("resnet18_cifar", image_size=32, pretrained=False)
    torch.manual_seed(0)
    method = spq(32, backbone)
    network = [*backbone.parameters(), *method.projection.parameters()]
    assert sum(p.numel() for p in network) == 11_431_488
    assert method.head.weight.shape == (128, 512)
    assert method.head.bias.shape == (128,)
    assert method.head.bias.abs().max().item() == pytest.approx(512**-0.5, rel=0.05)  # torch's default
    # Xavier uniform at gain 1; for the codebooks, of the matrix of all books.
    for weights, fans in ((method.head.weight, 512 + 128), (method.codebooks, 16 + 128)):
        assert weights.abs().max().item() == pytest.approx((6 / fans) ** 0.5, rel=0.01)
        assert weights.std().item() == pytest.approx((2 / fans) ** 0.5, rel=0.05)


def test_queries_keep_their_vectors_and_the_database_its_codewords() -> None:
    method = spq(16)
    images = torch.randn(7, 3, 4, 4)
    values = method.encode(images)
    queries = method.query_codes(values)
    assert (queries.dtype, queries.shape) == (np.float32, (7, 64))
    np.testing.assert_array_equal(queries, values.detach())
    codes = method.codes(values)
    assert isinstance(codes, ProductCodes)
    again = method.codes(torch.from_numpy(codes.reconstruct()))  # a codeword is its own nearest
    np.testing.assert_array_equal(again.indices, codes.indices)
    alone = np.concatenate([method.codes(method.encode(image[None])).indices for image in images])
    np.testing.assert_array_equal(alone, codes.indices)


def test_codes_outlast_a_change_of_the_codebooks() -> None:
    method = spq(16)
    codes = method.codes(torch.randn(7, 64))
    before = codes.reconstruct()
    with torch.no_grad():
        method.codebooks.add_(1)
    np.testing.assert_array_equal(codes.reconstruct(), before)
