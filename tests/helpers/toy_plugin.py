"""A plugin file with a method and a dataset that are small enough to train and verify quickly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hashbench import load_dataset, registry
from hashbench.experiment import run
from hashbench.experiment.configure import configure
from hashbench.experiment.run import Run
from hashbench.training.options import DEFAULT, RunOptions

PLUGIN = '''
"""Squares of four colours, and codes that distinguish the two views of each from the others."""

import numpy as np
import torch
from torch.nn import functional as F

from hashbench import ArrayImages, Dataset, DatasetPlugin, FeatureMethod, Protocol, Split


class Toy(DatasetPlugin):
    protocols = {
        "short": Protocol("24 training images", 8, 24, 24),
        "long": Protocol("44 training images", 8, 44, 44),
        "any": Protocol("as many as there are"),
    }

    def load(self, root, protocol):
        random, labels = np.random.RandomState(0), np.arange(60) % 4
        pixels = (60 * labels[:, None, None, None] + random.randint(0, 40, (60, 16, 16, 3))).astype(np.uint8)
        images = Split(ArrayImages(pixels, [f"toy/{index:02d}" for index in range(60)]), labels)
        query, validation = images.subset(np.arange(8)), images.subset(np.arange(8, 16))
        rest = images.subset(np.arange(16, 16 + (self.protocols[protocol].train or 24)))
        return Dataset.from_splits(
            "toy", protocol, "abcd", train=rest, query=query, database=rest, validation=validation,
            options=self.options, warnings=["made up"],
        )


class Tiny(FeatureMethod):
    def __init__(self, backbone, bits, hyperparameters):
        super().__init__(backbone, bits, hyperparameters)
        self.head = torch.nn.Linear(backbone.feature_dim, bits)

    def feature_losses(self, *features):
        codes = [F.normalize(self.head(view)) for view in features]
        return {"loss": F.cross_entropy(codes[0] @ codes[1].T, torch.arange(len(codes[0])))}

    def encode_features(self, features):
        return self.head(features)


DATASETS = {"toy": Toy}
METHODS = {"tiny": Tiny}
'''

RECIPE = """
defaults:
  backbone: {name: test_resnet, pretrained: false}
  images: {size: 16}
  training: {epochs: 4, batch_size: 8, freeze_backbone: true}
  evaluation: {k: [5, all]}
components: {small batch: {batch_size: 16}}
published_protocol: {toy: long}
"""


@contextmanager
def toy_plugin(folder: Path) -> Iterator[Path]:
    """Write the plugin and its recipe into a folder, and register only this plugin within the context."""
    plugin = folder / "toy.py"
    plugin.write_text(PLUGIN)
    plugin.with_suffix(".yaml").write_text(RECIPE)
    files = registry.PLUGIN_FILES
    before, files.paths = files.paths, []
    registry.add_plugin_file(plugin)
    try:
        yield plugin
    finally:
        files.paths = before


def run_toy(
    results: Path, protocol: str, *settings: str, method: str = "tiny", execution: RunOptions = DEFAULT
) -> Run:
    """Run a method on the dataset; register the plugin first."""
    dataset = load_dataset("toy", protocol)
    config = configure(method, dataset, bits=8, seed=0, device="cpu", settings=settings)
    return run.run(config, dataset, results, execution=execution)
