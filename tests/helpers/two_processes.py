"""The work of two processes in test_distributed.py, and of a single process.

`python -m helpers.two_processes FOLDER` starts two processes with the launcher of torchrun, forked from one
process, so that torch is imported once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.configs import run_config
from helpers.forked import call, few_digits, wait
from safetensors.torch import save_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hashbench import ArrayImages, distributed
from hashbench.config import RunConfig
from hashbench.encoding.encode import encode
from hashbench.experiment.validation import evaluate_together
from hashbench.experiment.weights import build_method
from hashbench.runtime.console import is_main_process
from hashbench.training.trainer import train

# The rates at which they learn. A sign that rounding turns is a step of the loss; of WCH's codes many are
# near 0 with these weights, so that it goes slowly.
METHODS = {
    "wch": 2e-7, "cibhash": 1e-4, "bihalf": 1e-4, "spq": 1e-4, "greedyhash": 1e-4, "sdc": 1e-3, "nsh": 1e-3,
    "tbh": 1e-5, "ssdh": 1e-2, "mls3rduh": 1e-2, "cimon": 1e-3, "mecoq": 1e-3, "uhbdnn": 1e-4, "crovca": 1e-3,
}  # fmt: skip
FITTED = ("lsh", "itq")
IMAGES = ArrayImages(
    np.random.RandomState(0).randint(0, 256, (77, 32, 32, 3), dtype=np.uint8), [f"i{n}" for n in range(77)]
)
QUERIES = IMAGES.subset(np.arange(20))
LABELS = np.random.RandomState(1).randint(0, 5, 77)

# The second process fails in the third step.
FAILING = '''
from hashbench import HashbenchError, HashMethod, distributed

class Failing(HashMethod):
    """Fails."""

    step = 0

    def training_losses(self, *views):
        self.step += 1
        if self.step == 3 and distributed.rank() == 1:
            raise HashbenchError("the second process has had enough")
        return {"loss": self.backbone.pooled(distributed.gather(views[0])).square().mean()}

    def encode(self, images):
        return self.backbone.pooled(images)[:, : self.bits]

METHODS = {"failing": Failing}
'''
FAST = [
    f"--set={setting}"
    for setting in (
        "backbone=test_resnet", "pretrained=false", "images.size=16", "epochs=1", "batch_size=14", "views={}",
    )
]  # fmt: skip


def config(method: str, **training: Any) -> RunConfig:
    """Return the configuration of a run of 9 steps, in batches of 32, 32 and 13 images, with batch norm."""
    return run_config(
        method=method,
        bits=16,
        processes=distributed.world_size(),
        views={"crop_scale": (0.5, 1.0), "horizontal_flip": 0.5},
        optimizer={"name": "sgd", "lr": METHODS.get(method, 1.0)},
        training={"epochs": 3, "batch_size": 32, "precision": "float32", **training},
    )


def run(method: str, folder: Path, **training: Any) -> None:
    """Train and evaluate; write the log, weights, codes and metrics into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = config(method, **training)
    trained = build_method(settings)
    train(trained, IMAGES, settings, folder)
    query, database = (encode(trained, images, settings, workers=0, task="t") for images in (QUERIES, IMAGES))
    relevant = {"query_labels": LABELS[:20], "database_labels": LABELS}
    evaluation = evaluate_together(query, database, relevant, settings)
    if is_main_process():
        weights = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
        save_file(weights, folder / "weights.safetensors")
        (folder / "figures.json").write_text(json.dumps(evaluation.to_dict()["metrics"]), encoding="utf-8")


def run_all(folder: Path) -> None:
    """Run all configurations of the test."""
    distributed.init_process_group("cpu")
    torch.set_num_threads(1)
    for method in (*METHODS, *FITTED):
        run(method, folder / method)
    run("spq", folder / "half", precision="bfloat16", epochs=1)


def record(folder: Path) -> None:
    """Call the program."""
    command = ["run", "--method", "bihalf", "--bits", "16", "--dataset", "digits", *FAST]
    sys.exit(call([*command, "--results", str(folder / "record")]))


def fail(folder: Path) -> None:
    """Call the program with a method that fails."""
    plugin = folder / "failing.py"
    command = ["run", "--plugin", str(plugin), "--method", "failing", "--dataset", "digits"]
    sys.exit(call([*command, "--results", str(folder / "failing"), *FAST]))


def share(folder: Path) -> None:
    """Call the program with a grid of two runs."""
    command = ["run", "--method", "lsh", "--dataset", "digits", "--seed", "0,1", "--bits", "16"]
    small = [
        setting for setting in FAST if "=images" in setting or "=backbone" in setting or "=pre" in setting
    ]
    sys.exit(call([*command, "--results", str(folder / "shared"), *small]))


def launch(function: Callable[[Path], None], folder: Path) -> bool:
    """Call a function in two processes, and return whether both end well; if one fails, so must the other."""
    launcher = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, max_restarts=0, start_method="fork",
        run_id=function.__name__, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
    )  # fmt: skip
    try:
        elastic_launch(launcher, function)(folder)
    except ChildFailedError:
        return False
    return True


def main(folder: Path) -> None:
    """Leave the runs in a folder, and in its `ends.json` whether they ended well."""
    few_digits(300)
    (folder / "failing.py").write_text(FAILING, encoding="utf-8")
    ends = {function.__name__: launch(function, folder) for function in (run_all, record, fail)}
    if not (other := os.fork()):  # the same grid twice at once, each in two processes
        os._exit(not launch(share, folder))
    ends["share"] = [launch(share, folder), wait(other) == 0]
    (folder / "ends.json").write_text(json.dumps(ends), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
