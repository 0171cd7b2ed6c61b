"""Compare the speed of a training step with the published one, for each method.

Both sides start from the same weights, see the same images, which are in memory as tensors, and alternate in
one process. Before that, their losses and gradients are compared:

    python benchmarks/training.py
    python benchmarks/training.py --device cuda
    python benchmarks/training.py --device cuda --method wch --batch 32,128

The published sides are in `published_steps.py`. For BiHalf, an epoch on stored features, which
`--set feature_dropout=false` allows, is also compared with an epoch of the published program.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from published_steps import PUBLISHED, PublishedStep, published_step
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)
from torch.optim import Optimizer

from hashbench import registry
from hashbench.config import RunConfig
from hashbench.errors import HashbenchError
from hashbench.experiment.weights import build_method
from hashbench.method.base import FeatureMethod, HashMethod
from hashbench.recipe import load_recipe, resolve
from hashbench.runtime.device import resolve_device, resolve_precision
from hashbench.training.dataloader import EpochBatches, FeatureBatches
from hashbench.training.optim import create_optimizer

BITS = 64
WARM_UP, BLOCKS = 1, 5
LOSS_TOLERANCE, NORM_TOLERANCE = 1e-4, 1e-3  # absolute; relative
EPOCH = 2048  # number of images in an epoch of BiHalf

Views = tuple[Tensor, ...]
Losses = Callable[..., dict[str, Tensor]]


@dataclass(frozen=True)
class Size:
    """Problem size suitable for a device: images per step, and a network to replace that of the recipe."""

    batch: int
    backbone: str | None = None


# Published sizes for a GPU, smaller ones for a CPU.
SIZES = {
    "cpu": {"wch": Size(32, "vit_tiny_patch16_224"), "cibhash": Size(8), "spq": Size(64), "bihalf": Size(8)},
    "cuda": {"wch": Size(32), "cibhash": Size(64), "spq": Size(256), "bihalf": Size(32)},
}


def configuration(method: str, device: str, batch: int, backbone: str | None) -> RunConfig:
    """Load the recipe of a method for CIFAR-10, without pretrained weights."""
    entry = registry.find("method", method)
    path = entry.recipe()
    assert path is not None
    precision = resolve_precision("auto", device)
    settings = ["backbone.pretrained=false", f"precision={precision}", f"batch_size={batch}"]
    recipe = load_recipe(path, "cifar10", BITS)
    if backbone is not None:
        recipe["backbone"] = {**recipe["backbone"], "name": backbone}
    flags = {"method": method, "dataset": "cifar10", "protocol": "i", "bits": BITS, "seed": 0}
    return resolve(recipe, settings, entry.load().Hyperparameters, device=device, **flags)


def draw_views(count: int, batch: int, size: int, device: str) -> Views:
    """Draw views float32 [B, 3, size, size] of different images, each view with independent noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(batch, 3, 7, 7, generator=generator)
    # Without a tint per image, an untrained network would hardly distinguish them.
    tint = 3 * torch.randn(batch, 3, 1, 1, generator=generator)
    images = F.interpolate(coarse + tint, size=(size, size), mode="bilinear")
    noise = [torch.randn(images.shape, generator=generator) for _ in range(count)]
    return tuple((images + 0.3 * grain).to(device) for grain in noise)


def our_step(losses: Losses, optimizer: Optimizer, inputs: Views, half: bool) -> None:
    """Run one step as hashbench's training does, on inputs that are on the device.

    Args:
        losses: The method's `training_losses` for views, or its `feature_losses` for features.
        optimizer: An optimizer from `create_optimizer`.
        inputs: Views [B, 3, H, W], or features [B, F].
        half: Use autocast with bfloat16.
    """
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=half):
        parts = losses(*inputs)
    torch.stack([part.detach().float() for part in parts.values()]).tolist()  # for the log
    torch.autograd.backward(parts["loss"])
    optimizer.step()
    optimizer.zero_grad()


def seconds(function: Callable[[], None], calls: int, device: str) -> float:
    """Return the mean time of several calls, including the time until the device has finished."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def compare(method: HashMethod, model: PublishedStep, views: Views) -> None:
    """Stop the program unless both sides have the same loss and gradient, without dropout.

    The comparison uses float32 but not TensorFloat-32, whose rounding changes bits of codes.
    """
    for module in (*method.modules(), *model.modules()):
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        ours, theirs = method.training_losses(*views)["loss"], model(*views)
        torch.autograd.backward([ours, theirs])
    norms = [
        float(torch.stack([p.grad.norm() for p in side.parameters() if p.grad is not None]).norm())
        for side in (method, model)
    ]
    for side in (method, model):
        side.zero_grad()
        side.train()
    losses = ours.item(), theirs.item()
    same = abs(losses[0] - losses[1]) <= LOSS_TOLERANCE and abs(norms[0] / norms[1] - 1) <= NORM_TOLERANCE
    print(
        f"  loss {losses[0]:.6f}, published {losses[1]:.6f}; "
        f"norm of the gradient {norms[0]:.6f}, published {norms[1]:.6f}"
    )
    if not same:
        sys.exit("the two sides compute different values, so their times are not comparable")


def steps_per_second(
    config: RunConfig, method: HashMethod, model: PublishedStep, views: Views, steps: int
) -> tuple[float, float]:
    """Return the median speeds over blocks of steps, ours and the published one; the sides alternate."""
    device, half = config.device, config.training.precision == "bfloat16"
    our_optimizer = create_optimizer(method, config.optimizer, device)
    their_optimizer = model.optimizer()

    def ours() -> None:
        our_step(method.training_losses, our_optimizer, _channels_last(views), half)

    def theirs() -> None:
        published_step(model, their_optimizer, views)

    for step in (ours, theirs):
        seconds(step, WARM_UP, device)
    times = [(seconds(ours, steps, device), seconds(theirs, steps, device)) for _ in range(BLOCKS)]
    our_times, their_times = zip(*times, strict=True)
    return 1 / statistics.median(our_times), 1 / statistics.median(their_times)


def epoch_on_features(config: RunConfig, method: FeatureMethod) -> float:
    """Return the median seconds of an epoch of EPOCH images on features that were computed before."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(EPOCH, method.backbone.feature_dim, generator=generator).to(config.device)
    batches = FeatureBatches(features, EpochBatches(EPOCH, config), method.views)
    optimizer = create_optimizer(method, config.optimizer, config.device)

    numbers = itertools.count()

    def epoch() -> None:
        for batch in batches.epoch(next(numbers), 0):
            our_step(method.feature_losses, optimizer, batch, half=False)

    epoch()  # warm up
    return statistics.median(seconds(epoch, 1, config.device) for _ in range(BLOCKS))


def _channels_last(views: Views) -> Views:
    return tuple(view.to(memory_format=torch.channels_last) for view in views)


def batch_sizes(text: str) -> list[int]:
    """Parse the argument of --batch. BiHalf needs even sizes."""
    sizes = [int(part) for part in text.split(",")]
    if any(size < 4 or size % 2 for size in sizes):
        raise argparse.ArgumentTypeError("expected even batch sizes of at least 4")
    return sizes


def method_names(text: str) -> list[str]:
    """Parse the argument of --method."""
    names = text.split(",")
    for name in names:
        if name not in PUBLISHED:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(PUBLISHED)}, got {name!r}")
    return names


def main() -> None:
    """Parse the arguments, and report errors in one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--method",
        type=method_names,
        default=list(PUBLISHED),
        help="methods, separated by commas (default: all)",
    )
    parser.add_argument(
        "--batch", type=batch_sizes, help="images per step (default: suitable for the device)"
    )
    parser.add_argument("--backbone", help="vision transformer of WCH (default: suitable for the device)")
    parser.add_argument(
        "--steps", type=int, help=f"steps in each of {BLOCKS} blocks (default: 1, on a GPU 20)"
    )
    chosen = parser.parse_args()
    try:
        run(resolve_device(chosen.device), chosen)
    except HashbenchError as error:
        sys.exit(str(error))


def run(device: str, chosen: argparse.Namespace) -> None:
    """Compare and time both sides, and print a table."""
    steps = chosen.steps or (20 if device == "cuda" else 1)
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"CPU, torch threads: {torch.get_num_threads()}"
    )
    print(f"{name}; torch {torch.__version__}")
    table, epochs = [], []
    for method_name in chosen.method:
        size = SIZES[device][method_name]
        backbone = chosen.backbone or size.backbone if method_name == "wch" else None
        for batch in chosen.batch or [size.batch]:
            config = configuration(method_name, device, batch, backbone)
            method = build_method(config)
            model = PUBLISHED[method_name](method).to(device)
            method.to(device).to(memory_format=torch.channels_last)
            views = draw_views(method.views, batch, config.images.size, device)
            described = [method_name, config.backbone.name, config.images.size, batch]
            print(", ".join(map(str, described)))
            compare(method, model, views)
            ours, theirs = steps_per_second(config, method, model, views, steps)
            table.append([*described, config.training.precision, theirs, ours, ours / theirs])
            if method_name == "bihalf":
                assert isinstance(method, FeatureMethod)
                kept, published = epoch_on_features(config, method), EPOCH / batch / theirs
                epochs.append([batch, published, kept, published / kept])
    headers = ["method", "network", "px", "batch", "precision", "published", "hashbench", "gain"]
    print("\nsteps per second")
    print(tabulate(table, headers, tablefmt="github", floatfmt=".3g"))
    if epochs:
        print(f"\nBiHalf, seconds for an epoch of {EPOCH:,} images; the published one from its steps")
        headers = ["batch", "published", "features kept", "gain"]
        print(tabulate(epochs, headers, tablefmt="github", floatfmt=".3g"))


if __name__ == "__main__":
    main()
