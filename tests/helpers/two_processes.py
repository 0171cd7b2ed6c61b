"""The work of two processes in test_distributed.py, started by torchrun, and of a single process.

`python -m torch.distributed.run --nproc-per-node 2 two_processes.py FOLDER`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from hashbench import ArrayImages, distributed
from hashbench.config import RunConfig
from hashbench.encoding.encode import encode
from hashbench.experiment.validation import evaluate_together
from hashbench.experiment.weights import build_method
from hashbench.runtime.console import is_main_process
from hashbench.training.trainer import train

# The rates at which they learn. A sign that rounding turns is a step of the loss; of WCH's codes many are
# near 0 with these weights, so that it goes slowly.
METHODS = {"wch": 2e-7, "cibhash": 1e-4, "bihalf": 1e-4, "spq": 1e-4}
FITTED = ("lsh", "itq")
IMAGES = ArrayImages(
    np.random.RandomState(0).randint(0, 256, (77, 32, 32, 3), dtype=np.uint8), [f"i{n}" for n in range(77)]
)
QUERIES = IMAGES.subset(np.arange(20))
LABELS = np.random.RandomState(1).randint(0, 5, 77)


def config(method: str, **training: Any) -> RunConfig:
    """Return the configuration of a run of 21 steps, in batches of 32, 32 and 13 images, with batch norm."""
    return RunConfig(
        method=method,
        dataset="none",
        protocol="none",
        bits=16,
        seed=0,
        device="cpu",
        processes=distributed.world_size(),
        backbone={"name": "test_resnet", "pretrained": False},
        images={"size": 32},
        views={"crop_scale": (0.5, 1.0), "horizontal_flip": 0.5},
        optimizer={"name": "sgd", "lr": METHODS.get(method, 1.0)},
        training={"epochs": 7, "batch_size": 32, "precision": "float32", **training},
    )


def run(method: str, folder: Path, **training: Any) -> None:
    """Train and evaluate; write the log, weights, codes and metrics into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = config(method, **training)
    trained = build_method(settings)
    train(trained, IMAGES, settings, folder)
    query, database = (encode(trained, images, settings, workers=0, task="t") for images in (QUERIES, IMAGES))
    evaluation = evaluate_together(query, database, LABELS[:20], LABELS, settings)
    if is_main_process():
        weights = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
        save_file(weights, folder / "weights.safetensors")
        (folder / "figures.json").write_text(json.dumps(evaluation.to_dict()["metrics"]), encoding="utf-8")


def main(folder: Path) -> None:
    """Run all configurations of the test."""
    distributed.init_process_group("cpu")
    torch.set_num_threads(1)
    for method in (*METHODS, *FITTED):
        run(method, folder / method)
    run("spq", folder / "half", precision="bfloat16", epochs=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
