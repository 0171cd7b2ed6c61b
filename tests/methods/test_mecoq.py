"""MeCoQ against the values of its published code."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench import Backbone, ProductCodes, UsageError, create_method, evaluate
from hashbench_methods.mecoq import MeCoQ, debiased_contrastive_loss, soft_quantize

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
BACKWARD = {"rtol": 1e-3, "atol": 1e-5}
QUEUES = {"": None, "_queue": "queue_soft_codes", "_partial_queue": "partial_queue_soft_codes"}


@pytest.fixture
def values(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Load the published values."""
    return golden("mecoq")


def mecoq(bits: int = 16, features: int = 20, **settings: float) -> MeCoQ:
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, features)), image_size=4)
    method = create_method("mecoq", backbone, bits, **settings)
    assert isinstance(method, MeCoQ)
    return method


def released(values: dict[str, Tensor], **settings: float) -> MeCoQ:
    """Return a method whose head changes nothing, with the released codebooks, queue and weights."""
    method = mecoq(
        9, 24, words=8, dim=8, temperature=0.4, positive_prior=0.15, entropy_weight=0.5, queue=10,
        queue_begin_epoch=0, **settings,
    )  # fmt: skip
    nn.init.eye_(method.head.weight)
    nn.init.zeros_(method.head.bias)
    with torch.no_grad():
        method.codebooks.copy_(values["codebooks"])
        method.queue.copy_(values["queue_soft_codes"])
    return method


def test_soft_quantization(values: dict[str, Tensor]) -> None:
    for view in "12":
        codes, reconstruction = soft_quantize(values[f"view{view}"], values["codebooks"])
        torch.testing.assert_close(codes, values[f"soft_codes{view}"], **FORWARD)
        torch.testing.assert_close(reconstruction, values[f"reconstruction{view}"], **FORWARD)
        normalized = F.normalize(values[f"view{view}"].view(6, 3, 8), dim=2).flatten(1)
        error = F.mse_loss(normalized, reconstruction)
        torch.testing.assert_close(error, values[f"quantization_error{view}"], **FORWARD)
    codes, _ = soft_quantize(values["view1"], values["codebooks"], alpha=0.5)
    torch.testing.assert_close(codes, torch.softmax(0.5 * values["inner_products1"], 2), **FORWARD)


@pytest.mark.parametrize("mode", ["paper", "released"])
@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("views", ["", "near_"])
@pytest.mark.parametrize(("name", "prior"), [("debias", 0.15), ("simple", 0.0)])
def test_contrastive_loss(
    values: dict[str, Tensor], name: str, prior: float, views: str, queue: str, mode: str
) -> None:
    rows = [soft_quantize(values[f"{views}view{view}"], values["codebooks"])[1] for view in "12"]
    codes = values[QUEUES[queue]] if QUEUES[queue] else None
    negatives = None if codes is None else torch.einsum("qmw,mwd->qmd", codes, values["codebooks"]).flatten(1)
    loss = debiased_contrastive_loss(*rows, 0.4, prior, negatives, released=mode == "released")
    torch.testing.assert_close(loss, values[f"{views}contrastive_{name}{queue}_{mode}"], **FORWARD)
    if queue == "_queue":
        torch.testing.assert_close(negatives, values["queue_features"], **FORWARD)


@pytest.mark.parametrize("views", ["", "near_"])
@pytest.mark.parametrize("mode", ["paper", "released"])
def test_a_training_step(values: dict[str, Tensor], mode: str, views: str) -> None:
    method = released(values, released=mode == "released")
    if views:
        method.images = 100  # the queue is not used in the first epoch
        method.hyperparameters = method.hyperparameters.model_copy(update={"queue_begin_epoch": 1})
    view1, view2 = (values[f"{views}view{view}"].clone().requires_grad_() for view in "12")
    losses = method.feature_losses(view1, view2)
    losses["loss"].backward()
    torch.testing.assert_close(losses["loss"].detach(), values[f"{views}loss_{mode}"], **FORWARD)
    torch.testing.assert_close(losses["codewords"].detach(), values["codeword_regularizer"], **FORWARD)
    torch.testing.assert_close(view1.grad, values[f"{views}grad_view1_{mode}"], **BACKWARD)
    assert method.codebooks.grad is None
    if not views:
        torch.testing.assert_close(view2.grad, values[f"grad_view2_{mode}"], **BACKWARD)
        entropy = (values["entropy1"] + values["entropy2"]) / 2
        torch.testing.assert_close(losses["entropy"].detach(), entropy, **FORWARD)


@pytest.mark.parametrize(
    ("weight", "key"),
    [(0.5, "with_regularizer"), (0.0, "if_trainable_without_regularizer")],
)
def test_trained_codebooks(values: dict[str, Tensor], weight: float, key: str) -> None:
    """Codewords stay on the sphere, so that their gradient is the released one without its radial part."""
    method = released(values, trained_codebooks=True, codeword_weight=weight)
    method.feature_losses(values["view1"], values["view2"])["loss"].backward()
    words, gradient = values["codebooks"], values[f"grad_codebooks_{key}"]
    tangential = gradient - (gradient * words).sum(2, keepdim=True) * words
    torch.testing.assert_close(method.codebooks.grad, tangential, **BACKWARD)


def test_gradient_of_the_codebooks(values: dict[str, Tensor]) -> None:
    words = values["codebooks"].clone().requires_grad_()
    codes, rows = zip(*(soft_quantize(values[f"view{view}"], words) for view in "12"), strict=True)
    queue = torch.einsum("qmw,mwd->qmd", values["queue_soft_codes"], words).flatten(1)
    loss = debiased_contrastive_loss(*rows, 0.4, 0.15, queue, released=True)
    entropy = sum(-(code * code.log()).sum(2).mean() for code in codes) / 2
    (loss + 0.5 * entropy).backward()
    key = "grad_codebooks_if_trainable_without_regularizer"
    torch.testing.assert_close(words.grad, values[key], **BACKWARD)


@pytest.mark.parametrize("queue", [None, 3])
def test_the_loss_row_by_row(queue: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    rows1, rows2 = torch.randn(2, 5, 6, generator=generator)
    stored = None if queue is None else torch.randn(queue, 6, generator=generator)
    rows = F.normalize(torch.cat([rows1, rows2]), dim=1)
    total = 0.0
    for i in range(10):
        positive = float((rows[i] @ rows[(i + 5) % 10] / 0.3).exp())
        negative = sum(
            float((rows[i] @ rows[j] / 0.3).exp()) for j in range(10) if j not in (i, (i + 5) % 10)
        )
        negative += 0 if stored is None else sum(float((rows[i] @ row / 0.3).exp()) for row in stored)
        negative = max((negative - 0.2 * 8 * positive) / 0.8, 8 * np.exp(-1 / 0.3))
        total -= np.log(positive / (positive + negative)) / 10
    loss = debiased_contrastive_loss(rows1, rows2, 0.3, 0.2, stored)
    assert float(loss) == pytest.approx(total, rel=1e-5)


def test_ring_of_the_queue(values: dict[str, Tensor]) -> None:
    method = mecoq(9, words=8, dim=8, queue=12)
    for number, block in enumerate(values["ring_blocks"].split(values["ring_block_sizes"].tolist()), 1):
        method._enqueue(block)
        if number in (3, 6):
            torch.testing.assert_close(method.queue, values[f"ring_after_{number}"])
    assert method.pointer == values["ring_pointer_after_6"]


def test_a_queue_that_batches_do_not_divide() -> None:
    method = mecoq(9, words=8, dim=8, queue=5)
    blocks = torch.arange(9.0)[:, None, None].expand(9, 3, 8)
    for block in blocks.split(3):
        method._enqueue(block)
    assert method.queue[:, 0, 0].tolist() == [5, 6, 7, 8, 4]
    method._enqueue(blocks)  # more rows than the queue has
    assert sorted(method.queue[:, 0, 0].tolist()) == [0, 1, 2, 3, 4]


def test_queue_begins_with_an_epoch() -> None:
    """Epochs of 10 images in batches of 4, 4 and 2, with and without the last one."""
    for batches in ([4, 4, 2], [4, 4]):
        method = mecoq(queue=12, queue_begin_epoch=2)
        method.images = 10 if sum(batches) == 10 else 9  # a last batch of a single image is dropped
        used = []
        for size in batches * 3:
            stored = method.queue.clone()
            views = torch.randn(2, size, 20)
            loss = method.feature_losses(*views)["contrastive"]
            method.queue.copy_(torch.zeros_like(stored))
            again = mecoq(queue=0)
            again.load_state_dict(method.state_dict() | {"queue": again.queue})
            used.append(bool(loss != again.feature_losses(*views)["contrastive"]))
        assert used == [False] * (2 * len(batches)) + [True] * len(batches)


def test_queue_of_both_views_in_the_state() -> None:
    method = mecoq(queue=12, words=16, bits=16, dim=4)
    views = torch.randn(2, 4, 20)
    method.feature_losses(*views)
    codes = [soft_quantize(method.head(view), method.codebooks)[0] for view in views]
    torch.testing.assert_close(method.queue, torch.cat([*codes, torch.zeros(4, 4, 16)]).detach())
    state = method.state_dict()
    assert (state["pointer"], state["block"], state["seen"]) == (8, 4, 4)
    assert torch.equal(state["queue"], method.queue)


def test_retrieval(values: dict[str, Tensor]) -> None:
    method = released(values)
    gallery, query = (method.codes(method.encode_features(values[name])) for name in ("gallery", "query"))
    np.testing.assert_array_equal(gallery.indices, values["gallery_codes"])
    np.testing.assert_array_equal(query.indices, values["query_codes"])
    np.testing.assert_allclose(gallery.reconstruct(), values["gallery_reconstruction"], atol=1e-6)
    queries = method.query_codes(method.encode_features(values["query"]))
    np.testing.assert_array_equal(queries, values["query"])  # not normalized
    scores = torch.from_numpy(queries @ gallery.reconstruct().T)
    torch.testing.assert_close(scores, values["scores_asymmetric"], **FORWARD)
    assert torch.equal(scores.argsort(descending=True, stable=True), values["ranking_asymmetric"])
    symmetric = torch.from_numpy(query.reconstruct() @ gallery.reconstruct().T)
    torch.testing.assert_close(symmetric, values["scores_symmetric"], **FORWARD)
    labels = values["query_labels"].numpy(), values["gallery_labels"].numpy()
    result = evaluate(queries, gallery, *labels, k=(5, "all"))
    assert result.mean_average_precision("all") == pytest.approx(float(values["map_all"]), abs=1e-5)
    assert result.mean_average_precision(5) == pytest.approx(float(values["map_at_5"]), abs=1e-5)


def test_largest_inner_product_of_long_features() -> None:
    method = mecoq(words=16, bits=16, dim=4)
    features = 1e3 * torch.randn(50, 16)
    products = torch.einsum("nmd,mwd->nmw", features.view(50, 4, 4), method.codebooks)
    codes = method.codes(features)
    assert isinstance(codes, ProductCodes)
    assert codes.distance == "inner_product"
    np.testing.assert_array_equal(codes.indices, products.argmax(2))


def test_codebooks() -> None:
    method = mecoq(32)
    assert method.codebooks.shape == (4, 256, 16)
    torch.testing.assert_close(method.codebooks.norm(dim=2), torch.ones(4, 256))
    assert not method.codebooks.requires_grad
    with pytest.raises(UsageError, match="mecoq: expected a multiple of 8 bits"):
        mecoq(12)
