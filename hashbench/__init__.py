"""hashbench: a benchmark suite for unsupervised image hashing.

Public names are imported on first use, since commands such as `--help` must not wait for torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

# Worker processes unpickle classes of plugin files, which only the finder of this module can import.
from hashbench import plugin_files as plugin_files

if TYPE_CHECKING:
    from hashbench.backbones import Backbone, create_backbone
    from hashbench.codes import BinaryCodes, ProductCodes
    from hashbench.data.dataset import About, Dataset, DatasetPlugin, Split
    from hashbench.data.download import Archive
    from hashbench.data.load import load_dataset
    from hashbench.data.options import DataOptions, FileOptions, ListOptions
    from hashbench.data.protocol import Protocol
    from hashbench.distributed import gather
    from hashbench.errors import HashbenchError, UsageError
    from hashbench.evaluation import Counts, Evaluation, evaluate
    from hashbench.experiment.weights import load
    from hashbench.images.image_sets import ArrayImages, FileImages, Images
    from hashbench.launchers.api import run, run_experiment
    from hashbench.method.base import (
        FeatureMethod,
        HashMethod,
        ShallowMethod,
        TrainingSet,
        straight_through_sign,
    )
    from hashbench.method.create import create_method
    from hashbench.results.data_frame import read_results
    from hashbench.results.record import Record, read_record

_MODULES = {
    "backbones": ("Backbone", "create_backbone"),
    "codes": ("BinaryCodes", "ProductCodes"),
    "data.options": ("DataOptions", "FileOptions", "ListOptions"),
    "data.dataset": ("About", "Dataset", "DatasetPlugin", "Split"),
    "data.download": ("Archive",),
    "errors": ("HashbenchError", "UsageError"),
    "evaluation": ("Counts", "Evaluation", "evaluate"),
    "experiment.weights": ("load", "load_trained"),
    "launchers.api": ("run", "run_experiment"),
    "images.image_sets": ("ArrayImages", "FileImages", "Images"),
    "method.base": (
        "FeatureMethod",
        "HashMethod",
        "ShallowMethod",
        "TrainingSet",
        "straight_through_sign",
    ),
    "distributed": ("gather",),
    "data.protocol": ("Protocol",),
    "data.load": ("load_dataset",),
    "method.create": ("create_method",),
    "results.data_frame": ("read_results",),
    "results.record": ("Record", "read_record"),
}
__version__: str  # read on first use, too

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [  # noqa: RUF022 (by topic)
    "evaluate",
    "Evaluation",
    "Counts",
    "BinaryCodes",
    "ProductCodes",
    "create_method",
    "HashMethod",
    "FeatureMethod",
    "ShallowMethod",
    "TrainingSet",
    "straight_through_sign",
    "gather",
    "create_backbone",
    "Backbone",
    "load_dataset",
    "Dataset",
    "DatasetPlugin",
    "DataOptions",
    "FileOptions",
    "ListOptions",
    "Protocol",
    "About",
    "Archive",
    "Split",
    "Images",
    "ArrayImages",
    "FileImages",
    "run",
    "run_experiment",
    "load",
    "read_record",
    "read_results",
    "Record",
    "HashbenchError",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("hashbench")
    if name not in _HOMES:
        raise AttributeError(f"module 'hashbench' has no attribute {name!r}")
    return getattr(import_module(f"hashbench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
