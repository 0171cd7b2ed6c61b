"""One run: data -> train -> encode -> evaluate -> record."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from hashbench import distributed, registry
from hashbench.backbones import create_backbone
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset
from hashbench.data.download import file_digest
from hashbench.data.packing import require_size
from hashbench.encoding.encode import check_encoder, encode, encode_queries
from hashbench.encoding.features import BATCH_SIZE
from hashbench.errors import HashbenchError, UsageError
from hashbench.evaluation import VERSION, code_health
from hashbench.experiment.artifacts import curves, restore, save_codes, save_queries, save_weights
from hashbench.experiment.configure import changes, components, published_protocol, recipe_digest, resolve_run
from hashbench.experiment.validation import evaluate_together, hold_out, scorer
from hashbench.images.gpu_transforms import DeviceViews
from hashbench.method.base import HashMethod, ShallowMethod
from hashbench.method.create import create_method
from hashbench.results.folders import new_run_folder, tidy
from hashbench.results.record import (
    CODES,
    CURVES,
    FILES,
    IDENTITY,
    MODEL,
    QUERIES,
    STARTED,
    STATES,
    THREADS,
    Metric,
    Record,
    SplitRecord,
    Timing,
    read_record,
    run_folder,
    run_id_of,
    run_identity,
    write_record,
)
from hashbench.runtime import environment
from hashbench.runtime.arguments import as_path
from hashbench.runtime.console import is_main_process, warn
from hashbench.runtime.json_files import read_json
from hashbench.runtime.torch_errors import ENCODE_LESS, translate_errors
from hashbench.training.model_selection import BACKBONE
from hashbench.training.trainer import DEFAULT, RunOptions, train


@dataclass(frozen=True)
class Run:
    """A run that is done: its record, where it is, and whether it was there before."""

    record: Record
    folder: Path
    existed: bool


def configure(
    method: str,
    dataset: Dataset,
    *,
    bits: int,
    seed: int,
    device: str,
    settings: Sequence[str] = (),
) -> RunConfig:
    """Resolve the configuration of a run from the method's recipe and what the user set.

    Args:
        method: A registered method.
        dataset: The loaded dataset.
        bits: Length of the codes.
        seed: Of everything random.
        device: "cpu" or "cuda".
        settings: `KEY=VALUE` texts.
    """
    flags: dict[str, Any] = {"method": method, "bits": bits, "seed": seed}
    flags |= {"device": device, "processes": distributed.world_size()}
    flags |= {"dataset": dataset.name, "protocol": dataset.protocol, "data": dict(dataset.options)}
    config = resolve_run(flags, settings)
    # What cannot be done is said now, and not when other runs of a grid have taken hours.
    if config.views.on_device:
        DeviceViews(config.images, config.views)
    if config.selection.name != "last" and issubclass(registry.find("method", method).load(), ShallowMethod):
        raise UsageError(
            f"{method} is fitted at once and has no epochs to choose from; leave out "
            f"selection={config.selection.name}"
        )
    images, *_ = hold_out(dataset, config)
    published_protocol(config, len(images))
    require_size(dataset, config.images.resize or config.images.size)
    return config


def length_note(config: RunConfig, dataset: Dataset) -> str | None:
    """Return a sentence on how the length of training differs from the published one, if it does.

    Args:
        config: The run.
        dataset: Its data.

    Raises:
        HashbenchError: As `published_protocol` does.
    """
    images, *_ = hold_out(dataset, config)
    published = published_protocol(config, len(images))
    return published.difference(config.method, config.dataset, config.protocol) if published else None


def identity(config: RunConfig, dataset: Dataset, source: str) -> dict[str, Any]:
    """All that can change the numbers of a run, but for the number of threads.

    Args:
        config: The run.
        dataset: Whose split counts.
        source: Hash of the code, from `registry.source_digest`.
    """
    return run_identity(
        config.model_dump(mode="json"),
        dataset.fingerprint,
        _validation(config, dataset),
        source,
        environment.library_versions(*_further_libraries(config)),
    )


def run_id(config: RunConfig, dataset: Dataset, source: str) -> str:
    """A readable stem and a hash of `identity`."""
    return run_id_of(identity(config, dataset, source))


def run(
    config: RunConfig,
    dataset: Dataset,
    results: Path,
    *,
    force: bool = False,
    execution: RunOptions = DEFAULT,
) -> Run:
    """Train, encode, evaluate and leave a record; do nothing if the record is there.

    Where several processes run this together, each does its share, and the first writes.

    Args:
        config: From `configure`.
        dataset: The dataset that the configuration names.
        results: Folder of all records.
        force: Run even if the record is there, and replace it.
        execution: How; changes no number.

    Raises:
        UsageError: The backbone does not exist or fit.
        HashbenchError: Training diverged, the method breaks its contract, an image cannot be read, the record
            cannot be written, or the machine failed.
        PreemptionError: SIGTERM or SIGHUP came.
    """
    # Once, at the start: a file that is edited during the training had no part in it.
    source = source_of(config)
    identifier = run_id(config, dataset, source)
    folder = run_folder(results, config.dataset, config.protocol, config.method, config.bits, identifier)
    if is_main_process():
        tidy(folder)
    if distributed.broadcast_object(folder.exists()) and not force:
        return Run(read_record(folder), folder, existed=True)
    with translate_errors(config, "a first look at the network", ENCODE_LESS):
        method = build_method(config)
        check_encoder(method, dataset.train, config)  # a fault should not wait for the end of the training
    images, looked_for, searched = hold_out(dataset, config)
    # Faults of a recipe should not wait, too.
    changed, declared, recipe = changes(config), components(config.method), recipe_digest(config.method)
    published = published_protocol(config, len(images))
    workers = execution.workers
    score = scorer(looked_for, searched, config, workers) if looked_for and searched else None
    with _shared_folder(folder, execution.resume) as partial:
        if is_main_process():
            (partial / STARTED).write_text(json.dumps(changed), encoding="utf-8")
            (partial / STATES).mkdir(exist_ok=True)
            threads = _threads(partial, config.device)
            which = {**identity(config, dataset, source), THREADS: threads}
            (partial / STATES / IDENTITY).write_text(json.dumps(which), encoding="utf-8")
        training = train(method, images, config, partial, execution, score)
        trained = time.monotonic()
        with translate_errors(config, f"encoding {BATCH_SIZE} images at once", ENCODE_LESS):
            query = encode_queries(method, dataset.query.images, config, workers=workers, task="queries")
            database = encode(method, dataset.database.images, config, workers=workers, task="database")
        encoded = time.monotonic()
        with translate_errors(config, "evaluation", "stop what else takes memory; --resume goes on here"):
            evaluation = evaluate_together(
                query, database, dataset.query.labels, dataset.database.labels, config
            )
        metrics = evaluation.to_dict()["metrics"]
        evaluated = time.monotonic()
        if is_main_process():
            save_weights(partial / MODEL, method, config)
            save_codes(partial / CODES, query, database, dataset)
            curves(evaluation).to_csv(partial / CURVES, index=False)
            save_queries(partial / QUERIES, evaluation, dataset)
            (partial / STARTED).unlink()
            record = Record(
                run_id=identifier,
                method=config.method,
                dataset=config.dataset,
                protocol=config.protocol,
                bits=config.bits,
                seed=config.seed,
                config=config.model_dump(mode="json"),
                split=SplitRecord(
                    query=len(dataset.query.images),
                    train=len(images),
                    database=len(dataset.database.images),
                    sha256=dataset.fingerprint,
                    overlaps=dataset.overlaps,
                    warnings=dataset.warnings,
                    validation=_validation(config, dataset),
                ),
                metrics={name: Metric(**values) for name, values in metrics.items()},
                queries_without_relevant=evaluation.queries_without_relevant,
                health=code_health(database, evaluation),
                timing=Timing(
                    train=round(training.seconds, 2),
                    encode=round(encoded - trained, 2),
                    evaluate=round(evaluated - encoded, 2),
                    peak_memory=training.peak_memory,
                    images_per_second=training.images_per_second,
                    waiting=training.waiting,
                ),
                environment={
                    **environment.describe(config.device, *_further_libraries(config)),
                    **({"threads_before_stop": threads[:-1]} if threads[1:] else {}),
                    "source": source,
                },
                created=datetime.now(timezone.utc),
                evaluator=VERSION,
                changes=changed,
                components=declared,
                files={name: file_digest(partial / name, "sha256") for name in FILES},
                resumed=training.resumed,
                selected=training.selected,
                recipe=recipe,
                published_protocol=published,
            )
            write_record(record, partial)
    return Run(read_record(folder), folder, existed=False)


@contextmanager
def _shared_folder(final: Path, resume: bool) -> Iterator[Path]:
    """The folder that the first process opens by `new_run_folder`, for all; they leave it together."""
    if is_main_process():
        with new_run_folder(final, resume=resume) as partial:
            distributed.broadcast_object(partial)
            yield partial
        distributed.barrier()
    else:
        yield distributed.broadcast_object(final)
        distributed.barrier()


def build_method(config: RunConfig) -> HashMethod:
    """Build the untrained method of a run; the seed fixes its weights."""
    set_seed(config.seed)
    chosen = config.backbone.model_dump()
    options = chosen.pop("options")
    backbone = create_backbone(**chosen, image_size=config.images.size, **options)
    if config.training.freeze_backbone:
        backbone.freeze(dropout=config.training.feature_dropout)
    return create_method(config.method, backbone, config.bits, **config.hyperparameters)


def threads_note(record: Record) -> str | None:
    """Return a sentence if a run on a CPU had another number of threads than this process, else None."""
    now, made = torch.get_num_threads(), record.environment.get("threads")
    before = record.environment.get("threads_before_stop")
    counts = [*(before if isinstance(before, list) else ()), made]
    if record.config.get("device") != "cpu" or made is None or counts == [now]:
        return None
    threads = "1 thread" if counts == [1] else f"{' and then '.join(map(str, counts))} threads"
    return f"it was made with {threads}; this process has {now}, which would give other figures"


def load_trained(folder: Path | str, *, strict: bool = True) -> HashMethod:
    """Load the trained method of a run, in evaluation mode on the CPU.

    The source code must be that of the run: changed code can take the same weights and give other codes.

    Args:
        folder: The run's folder.
        strict: Refuse other source code; False: warn of it, and load.

    Raises:
        HashbenchError: The folder is not that of a run, the run's source code is not the present one, or its
            weights do not fit the method.
    """
    folder = as_path(folder, "folder")
    record = read_record(folder)
    registry.find("method", record.method)  # without it there is nothing to compare
    if difference := _source_difference(record):
        if strict:
            raise HashbenchError(
                f"{folder}: {difference}; run it again, or load it as it is by load_trained(…, strict=False)"
            )
        warnings.warn(f"{folder}: {difference}", stacklevel=2)
    try:
        config = RunConfig(**record.config)
        weights = load_file(folder / MODEL)
        if any(name.startswith(BACKBONE) for name in weights):  # nothing to download
            unloaded = config.backbone.model_copy(update={"pretrained": False})
            config = config.model_copy(update={"backbone": unloaded})
        method = build_method(config)
        restore(method, weights)
    except (ValidationError, RuntimeError, OSError, SafetensorError) as error:
        raise HashbenchError(
            f"{folder / MODEL} does not fit the {record.method} that is installed ({error}); run it again"
        ) from error
    return method.eval()


def _source_difference(record: Record) -> str | None:
    """Return how the present source code differs from that of a run, with the versions; None: it does not."""
    recorded = record.environment.get("source")
    try:
        present = source_of(record)
    except UsageError as error:
        return f"its source code cannot be compared with the present one ({error})"
    if present == recorded:
        return None
    then, now = environment.recorded_versions(record.environment), environment.library_versions()
    versions = [
        f"{name} was {then[name]} and is {now[name]}"
        for name in now
        if then.get(name, now[name]) != now[name]
    ]
    which = f"{record.method}, {record.dataset} or hashbench"
    found = "; ".join([f"recorded {recorded}, present {present}", *versions])
    return f"the source code of {which} has changed since the run ({found}), and may give other codes"


def _validation(config: RunConfig, dataset: Dataset) -> str | None:
    """Return the fingerprint of the protocol's own validation images, if they choose the epoch."""
    if config.selection.name != "best-val" or dataset.validation is None:
        return None
    return dataset.validation.fingerprint()


def _threads(folder: Path, device: str) -> list[int]:
    """Return the numbers of threads of a run: those before each stop, if they differ, and the present one.

    Args:
        folder: The run's folder; its states say with how many threads they were made.
        device: Where the run trains; on a GPU the number changes no figure.
    """
    now = torch.get_num_threads()
    try:
        then = read_json(folder / STATES / IDENTITY)[THREADS]
        before = [int(count) for count in then] or [now]
    except (OSError, ValueError, KeyError, TypeError):  # it starts, or its state is of an older version
        return [now]
    if before[-1:] == [now]:
        return before
    if device == "cpu":
        warn(
            f"the number of threads was {before[-1]} until the run was stopped and is {now} now, so "
            f"that its figures will be those of neither; OMP_NUM_THREADS={before[-1]} goes on as it began"
        )
    return [*before, now]


def _further_libraries(config: RunConfig) -> tuple[str, ...]:
    return ("kornia",) if config.views.on_device else ()


def source_of(run: RunConfig | Record) -> str:
    """Hash of the code that a run depends on, as it is now."""
    plugins = registry.find("method", run.method), registry.find("dataset", run.dataset)
    return registry.source_digest(*plugins)
