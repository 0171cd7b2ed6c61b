"""The method of a run: built with its initial weights, and saved and loaded with its trained ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hashbench import registry
from hashbench.backbones import Backbone, create_backbone
from hashbench.backbones.presets import licence
from hashbench.backbones.timm_weights import weights_file
from hashbench.config import RunConfig
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.experiment.identity import source_of
from hashbench.method.base import HashMethod
from hashbench.method.create import create_method
from hashbench.results.record import MODEL, Record, read_record
from hashbench.runtime import environment
from hashbench.runtime.arguments import as_path, check_type
from hashbench.runtime.files import sha256_of
from hashbench.training.checkpoints import rng_state, set_rng_state
from hashbench.training.model_selection import BACKBONE

if TYPE_CHECKING:
    from hashbench.experiment.run import Run


def build_method(config: RunConfig) -> HashMethod:
    """Build the untrained method of a run; the seed determines its weights."""
    set_seed(config.seed)
    backbone = build_backbone(config)
    if config.training.freeze_backbone:
        backbone.freeze(dropout=config.training.feature_dropout)
    for layer in config.training.frozen_layers:
        _freeze_layer(backbone, layer)
    return create_method(config.method, backbone, config.bits, **config.hyperparameters)


def _freeze_layer(backbone: Backbone, name: str) -> None:
    network: nn.Module = backbone.network
    try:
        network.get_submodule(name).requires_grad_(False)
    except AttributeError:
        raise unknown_name("layer", name, [layer for layer, _ in network.named_modules() if layer]) from None


def build_backbone(config: RunConfig, **changes: Any) -> Backbone:
    """Build the backbone of a run, with changed settings if there are any."""
    arguments = config.backbone.model_dump() | changes
    options = arguments.pop("options")
    return create_backbone(**arguments, image_size=config.images.size, **options)


def describe_weights(config: RunConfig) -> dict[str, str]:
    """Return the licence and the hash of the pretrained weights that a run starts from, as far as known."""
    chosen = config.backbone
    if not chosen.pretrained:
        return {}
    file = weights_file(chosen.name) if chosen.weights is None else None
    digest = chosen.weights_sha256 if file is None else sha256_of(file)
    facts = {"weights_licence": None if chosen.weights else licence(chosen.name), "weights_sha256": digest}
    return {name: fact for name, fact in facts.items() if fact is not None}


def save_weights(path: Path, method: HashMethod, config: RunConfig) -> None:
    """Save the weights of a method, without those of a frozen backbone that can be downloaded again.

    Raises:
        OSError: The file cannot be written.
    """
    downloadable = method.backbone.frozen and config.backbone.pretrained and not config.backbone.weights
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # tied weights, too
        for name, tensor in method.state_dict().items()
        if not (downloadable and name.startswith(BACKBONE))
    }
    path.write_bytes(save(weights))  # `save_file` would leave a temporary file in the folder of a killed run


def restore(method: HashMethod, weights: Mapping[str, Tensor]) -> None:
    """Load weights from `save_weights` into a method; a backbone that was not saved keeps its own.

    Raises:
        RuntimeError: The weights do not fit the method.
    """
    if not any(name.startswith(BACKBONE) for name in weights):
        built = {name: tensor for name, tensor in method.state_dict().items() if name.startswith(BACKBONE)}
        weights = {**weights, **built}
    method.load_state_dict(weights)


def load(run: Run | Path | str, *, strict: bool = True, plugins: Sequence[Path | str] = ()) -> HashMethod:
    """Load the trained method of a run, in evaluation mode on the CPU.

    The source code must be that of the run, because other code can load the same weights and return other
    codes.

    Args:
        run: The run, or its folder.
        strict: Raise an error if the source code differs; if False, warn and load the method.
        plugins: Files of plugins to register first.

    Raises:
        UsageError: The method is not registered; if it was that of a plugin file, the message names the file.
        HashbenchError: The folder is not that of a run, the source code has changed since the run, or the
            weights do not fit the method.
    """
    folder: Any = getattr(run, "folder", run)
    folder = as_path(folder, "run")
    check_type("plugins", plugins, list, tuple)
    for file in plugins:
        registry.add_plugin_file(as_path(file, "plugins"))
    record = read_record(folder)
    _require_method(record, folder)
    if difference := _source_difference(record):
        if strict:
            raise HashbenchError(
                f"{folder}: {difference}; run it again, or load it anyway with load(…, strict=False)"
            )
        warnings.warn(f"{folder}: {difference}", stacklevel=2)
    before = rng_state(torch.cuda.is_available())
    try:
        config = RunConfig(**record.config)
        weights = load_file(folder / MODEL)
        if any(name.startswith(BACKBONE) for name in weights):  # nothing needs to be downloaded
            untrained = config.backbone.model_copy(update={"pretrained": False, "weights": None})
            config = config.model_copy(update={"backbone": untrained})
        method = build_method(config)
        restore(method, weights)
    except (ValidationError, RuntimeError, OSError, SafetensorError) as error:
        raise HashbenchError(
            f"{folder / MODEL} does not fit the installed {record.method} ({error}); run it again"
        ) from error
    finally:
        set_rng_state(before)  # of the caller, since the seed of the run determines the initial weights
    return method.eval()


load_trained = load  # its older name, which scripts use


def _require_method(record: Record, folder: Path) -> None:
    """Check that the method of a run is registered, since an unknown one has no source code to compare."""
    try:
        registry.find("method", record.method)
    except UsageError as error:
        files = record.environment.get("plugin_files")
        if files is None:
            raise
        raise UsageError(
            f"{folder}: its method {record.method} came from the plugin {files}; pass the path of each file "
            "as plugins=[…]"
        ) from error


def _source_difference(record: Record) -> str | None:
    """Describe how the source code differs from that of a run, with the versions; None if it is the same."""
    recorded = record.environment.get("source")
    try:
        present = source_of(record)
    except UsageError as error:
        return f"its source code cannot be compared with the installed one ({error})"
    if present == recorded:
        return None
    then, now = environment.recorded_versions(record.environment), environment.library_versions()
    versions = [
        f"{name} was {then[name]} and is {now[name]}"
        for name in now
        if then.get(name, now[name]) != now[name]
    ]
    parts = f"{record.method}, {record.dataset} or hashbench"
    found = "; ".join([f"recorded {recorded}, installed {present}", *versions])
    return f"the source code of {parts} has changed since the run ({found}) and may produce other codes"
