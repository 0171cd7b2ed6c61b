"""Training batches of images or features, which can start in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from hashbench import distributed
from hashbench.config import RunConfig
from hashbench.encoding.features import BATCH_SIZE
from hashbench.errors import UsageError
from hashbench.images.batch_loader import BatchLoader
from hashbench.images.image_sets import Images
from hashbench.images.transforms import ViewTransform, square_transform
from hashbench.runtime import preemption
from hashbench.runtime.progress import progress

Views = tuple[Tensor, ...]


class Batch(NamedTuple):
    """A batch of this process.

    Attributes:
        inputs: Views or features of the images, or the cropped images.
        indices: Rows of the images in the training set, int64 [B].
    """

    inputs: Views
    indices: Tensor


class EpochBatches:
    """Random batches of image indices for each epoch, of one or more passes over the images.

    A last batch of one image is dropped, since contrastive losses and batch norm need two. It is also dropped
    if it has fewer images than there are processes.

    Attributes:
        passes: Number of passes per epoch; a single one may be over a part of the images.
        batches: Number of batches per epoch.
        images: Number of images per epoch.
    """

    def __init__(self, size: int, config: RunConfig) -> None:
        self.size, self.batch_size, self.seed = size, config.training.batch_size, config.seed
        wanted = config.training.epoch_images or size
        used = min(size, wanted)
        left_over = used % self.batch_size
        kept = left_over >= max(2, config.processes) and not config.training.drop_last
        self._images_per_pass = used - (0 if kept else left_over)
        if not self._images_per_pass:
            drawn = f" in an epoch, of which epoch_images={wanted} are drawn," if used < size else ""
            raise UsageError(
                f"{size} training images{drawn} do not fill a batch of {self.batch_size}; "
                "use a smaller --set batch_size=… or --set drop_last=false"
            )
        batches = -(-self._images_per_pass // self.batch_size)
        # Of fewer images than a batch, as many batches as an epoch of full ones has, and not as many images.
        self.passes = max(1, min(round(wanted / size), round(-(-wanted // self.batch_size) / batches)))
        self.images, self.batches = self.passes * self._images_per_pass, self.passes * batches
        if self.batch_size < config.processes:
            raise UsageError(
                f"a batch of {self.batch_size} images is too small for {config.processes} processes; "
                "use a larger --set batch_size=… or fewer processes"
            )

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch as indices of images."""
        generator, count = np.random.default_rng([self.seed, epoch]), self._images_per_pass
        batches: list[NDArray[np.int64]] = []
        for _ in range(self.passes):
            order = generator.permutation(self.size)[:count]
            batches += np.split(order, range(self.batch_size, count, self.batch_size))
        return batches


class ViewBatches:
    """Batches of augmented views, tuples of float32 [B, 3, H, W]; each process loads its shard of a batch.

    A view depends only on the seed, the pass and the image, and not on workers, batches or processes. With
    `views.on_device`, a batch is one tensor of cropped images instead, uint8 [B, 3, H, W].
    """

    def __init__(
        self, images: Images, order: EpochBatches, views: int, config: RunConfig, workers: int
    ) -> None:
        """Create the loader without starting a process."""
        inputs: Dataset[Views] = (
            _CroppedImages(images, config) if config.views.on_device else _Views(images, views, config)
        )
        self._order, self._size = order, len(images)
        self._loader = BatchLoader(inputs, config, workers, persistent=True)

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from index `first` on, on the CPU."""
        batches = [batch[distributed.shard(len(batch))] for batch in self._order.epoch(epoch)]
        per_pass = self._order.batches // self._order.passes
        items = [
            ((epoch * self._order.passes + number // per_pass) * self._size + batch).tolist()
            for number, batch in enumerate(batches)
        ]
        batches, items = batches[first:], items[first:]
        for views, indices in zip(self._loader.load(items), batches, strict=True):
            yield Batch(tuple(views), torch.from_numpy(indices))


class FeatureBatches:
    """Batches of computed features, equal for all views; each process loads the whole batch."""

    def __init__(self, features: Tensor, order: EpochBatches, views: int) -> None:
        """Store a reference to the features."""
        self._features, self._order, self._views = features, order, views

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from index `first` on, on the device of the features."""
        for batch in self._order.epoch(epoch)[first:]:
            indices = torch.from_numpy(batch).to(self._features.device)
            yield Batch((self._features[indices],) * self._views, indices)


class ResidentBatches:
    """Batches of cropped images that stay on the device, uint8 [B, 3, size, size], sharded by process."""

    def __init__(self, squares: Tensor, order: EpochBatches) -> None:
        """Store a reference to the images, uint8 [N, 3, size, size]."""
        self._squares, self._order = squares, order

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from index `first` on, on the device of the images."""
        for batch in self._order.epoch(epoch)[first:]:
            indices = torch.from_numpy(batch[distributed.shard(len(batch))]).to(self._squares.device)
            yield Batch((self._squares[indices],), indices)


Batches = FeatureBatches | ViewBatches | ResidentBatches


def image_batches(
    images: Images, order: EpochBatches, views: int, config: RunConfig, workers: int
) -> Batches:
    """Return the batches of a training on images.

    With `views.on_device`, the cropped images are loaded only once, if they take at most a quarter of the
    free memory of the GPU, or 1 GiB on a CPU.
    """
    size, count = config.images.size, len(images)
    free = torch.cuda.mem_get_info()[0] if config.device == "cuda" else 2**32
    if not config.views.on_device or 3 * size * size * count > free // 4:
        return ViewBatches(images, order, views, config, workers)
    squares = torch.empty(count, 3, size, size, dtype=torch.uint8, device=config.device)
    loader = BatchLoader(_CroppedImages(images, config), config, workers, persistent=False)
    done = 0
    with progress("loading", count) as advance:
        for (batch,) in loader.load_in_order(count, BATCH_SIZE):
            squares[done : done + len(batch)] = batch
            done += len(batch)
            advance(len(batch))
            preemption.check()
    return ResidentBatches(squares, order)


class _Views(Dataset[Views]):
    """Augmented views; index `number of the pass · size + i` seeds the views of image i in a pass."""

    def __init__(self, images: Images, views: int, config: RunConfig) -> None:
        self.images, self.views, self.seed = images, views, config.seed
        self.transform = ViewTransform(config.images, config.views)

    def __getitem__(self, item: int) -> Views:
        image = self.images[item % len(self.images)]
        with torch.random.fork_rng(devices=[]):
            state = np.random.SeedSequence([self.seed, item]).generate_state(1, np.uint64)
            torch.default_generator.manual_seed(int(state[0]))
            return self.transform.several(image, self.views)


class _CroppedImages(Dataset[Views]):
    """Cropped images, uint8 [3, size, size], for augmentation on the device."""

    def __init__(self, images: Images, config: RunConfig) -> None:
        self.images = images
        self.transform = v2.Compose([square_transform(config.images), v2.PILToTensor()])

    def __getitem__(self, item: int) -> Views:
        return (self.transform(self.images[item % len(self.images)]),)
