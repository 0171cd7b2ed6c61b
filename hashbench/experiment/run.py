"""A run: train a method, encode the queries and the database, evaluate the codes, and write a record."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashbench import distributed
from hashbench.codes import Codes
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset
from hashbench.encoding.encode import check_encoder, encode, encode_queries, feature_extractor
from hashbench.encoding.features import BATCH_SIZE
from hashbench.evaluation import VERSION, Evaluation, code_health
from hashbench.experiment.artifacts import curves, save_codes, save_queries
from hashbench.experiment.claims import ClaimedError, claimed
from hashbench.experiment.configure import record_fields
from hashbench.experiment.identity import (
    find_stale,
    identity_of,
    optional_libraries,
    plugin_files,
    source_of,
)
from hashbench.experiment.relevance import relevant_images
from hashbench.experiment.validation import evaluate_together, hold_out, scorer
from hashbench.experiment.weights import build_method, describe_weights, save_weights
from hashbench.method.base import HashMethod
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
    TRACKING,
    Metric,
    Record,
    SplitRecord,
    Timing,
    read_record,
    run_folder,
    run_id_of,
    write_record,
)
from hashbench.runtime import environment
from hashbench.runtime.console import is_main_process, warn
from hashbench.runtime.files import sha256_of
from hashbench.runtime.json_files import read_json
from hashbench.runtime.summary import Summarized
from hashbench.runtime.torch_errors import ENCODE_LESS, translate_errors
from hashbench.training.options import DEFAULT, RunOptions, TrainingSummary
from hashbench.training.tracking import Trackers
from hashbench.training.trainer import train


@dataclass(frozen=True, repr=False)
class Run(Summarized):
    """A finished run.

    Attributes:
        record: Its record.
        folder: Its folder.
        existed: True if the record already existed and nothing was trained.
    """

    record: Record
    folder: Path
    existed: bool

    def _summary(self) -> dict[str, object]:
        return {**self.record._summary(), "folder": self.folder}


def run(
    config: RunConfig,
    dataset: Dataset,
    results: Path,
    *,
    force: bool = False,
    execution: RunOptions = DEFAULT,
) -> Run:
    """Train, encode and evaluate a method and write a record, unless the record already exists.

    If several processes call this function together, they share the work and the main process writes.

    Raises:
        ClaimedError: Another process carries out the run.
        UsageError: The backbone does not exist or does not fit.
        HashbenchError: Training diverged, the method breaks its contract, an image cannot be read, the record
            cannot be written, or the machine failed.
        PreemptionError: SIGTERM or SIGHUP was received.
    """
    # At the start, because a file that is edited during training has no effect on the run.
    source = source_of(config)
    identity = identity_of(config, dataset, source)
    run_id = run_id_of(identity)
    folder = run_folder(results, config.dataset, config.protocol, config.method, config.bits, run_id)
    with claimed(results, run_id) as holder:
        if is_main_process():
            tidy(folder)
        found = distributed.broadcast_object(None if force else existing(folder, identity, execution))
        if found is not None:
            return Run(read_record(found), found, existed=True)
        if holder is not None:
            raise ClaimedError(f"{run_id} is carried out by {holder}; wait until it ends, or stop it")
        with Trackers(execution.track, results / TRACKING, run_id) as trackers:
            _make(config, dataset, folder, identity, execution, trackers)
            record = read_record(folder)  # it is on disk now, whatever a tracker does
            trackers.write_record(record)
        return Run(record, folder, existed=False)


def existing(folder: Path, identity: dict[str, Any], execution: RunOptions) -> Path | None:
    """Return the folder of a run's record, or of one by another version of the code if it is accepted."""
    if folder.exists():
        return folder
    return find_stale(folder.parent, identity) if execution.accept_stale else None


def _make(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    identity: dict[str, Any],
    execution: RunOptions,
    trackers: Trackers,
) -> None:
    """Train, encode and evaluate a method and write a record into a folder."""
    with translate_errors(config, "checking the method on a few images", ENCODE_LESS):
        method = build_method(config)
        check_encoder(method, dataset.train, config)  # errors should appear before the training
    train_images, val_query, val_database = hold_out(dataset, config)
    recipe = record_fields(config, len(train_images))
    relevant = relevant_images(dataset.query, dataset.database, config, execution.workers)
    score = scorer(val_query, val_database, config, execution.workers) if val_query and val_database else None
    with _shared_folder(folder, execution.resume) as partial:
        threads = _start(partial, recipe["changes"], identity, config.device) if is_main_process() else []
        training = train(method, train_images, config, partial, execution, score, trackers)
        measured = _measure(method, dataset, relevant, config, training, execution.workers)
        if is_main_process():
            _save(partial, method, dataset, relevant, config, measured)
            record = build_record(
                config,
                SplitRecord(
                    query=len(dataset.query.images),
                    train=len(train_images),
                    database=len(dataset.database.images),
                    sha256=dataset.fingerprint,
                    overlaps=dataset.overlaps,
                    warnings=dataset.warnings,
                    validation=identity.get("validation"),
                ),
                measured.database,
                measured.evaluation,
                measured.timing,
                run_id=folder.name,
                environment={
                    **environment.describe(config.device, *optional_libraries(config)),
                    **describe_weights(config),
                    **({"threads_before_stop": threads[:-1]} if threads[1:] else {}),
                    "source": identity["code"],
                    **({"plugin_files": ", ".join(files)} if (files := plugin_files(config)) else {}),
                },
                files={name: sha256_of(partial / name) for name in FILES},
                name=execution.name,
                resumed=training.resumed,
                selected=training.selected,
                **recipe,
            )
            write_record(record, partial)


@contextmanager
def _shared_folder(final: Path, resume: bool) -> Iterator[Path]:
    """Yield the folder that the main process opens with `new_run_folder`; all processes leave it together."""
    if is_main_process():
        with new_run_folder(final, resume=resume) as partial:
            distributed.broadcast_object(partial)
            yield partial
        distributed.barrier()
    else:
        yield distributed.broadcast_object(final)
        distributed.barrier()


def _start(folder: Path, changed: dict[str, Any], identity: dict[str, Any], device: str) -> list[int]:
    """Write what identifies an unfinished run into its folder; return the result of `_thread_counts`."""
    (folder / STARTED).write_text(json.dumps(changed), encoding="utf-8")
    (folder / STATES).mkdir(exist_ok=True)
    threads = _thread_counts(folder, device)
    (folder / STATES / IDENTITY).write_text(json.dumps({**identity, THREADS: threads}), encoding="utf-8")
    return threads


@dataclass(frozen=True)
class _Measured:
    """The codes of a run, and what was measured on them."""

    query: Codes | NDArray[np.float32]
    database: Codes
    evaluation: Evaluation
    timing: Timing


def _measure(
    method: HashMethod,
    dataset: Dataset,
    relevant: Mapping[str, Any],
    config: RunConfig,
    training: TrainingSummary,
    workers: int,
) -> _Measured:
    """Encode the queries and the database, and evaluate the codes."""
    start = time.monotonic()
    features = feature_extractor(method, config, workers)
    shared: dict[str, Any] = {"workers": workers, "extractor": features}
    with translate_errors(config, f"encoding {BATCH_SIZE} images at once", ENCODE_LESS):
        query = encode_queries(method, dataset.query.images, config, task="queries", **shared)
        database = encode(method, dataset.database.images, config, task="database", **shared)
    encoded = time.monotonic()
    with translate_errors(config, "evaluation", "free some memory; --resume continues with the evaluation"):
        evaluation = evaluate_together(query, database, relevant, config)
    timing = Timing(
        train=round(training.seconds, 2),
        encode=round(encoded - start - (features.waited if features else 0), 2),
        evaluate=round(time.monotonic() - encoded, 2),
        peak_memory=training.peak_memory,
        images_per_second=training.images_per_second,
        waiting=training.waiting,
        features=training.feature_seconds,
        encode_features=round(features.seconds, 2) if features else None,
    )
    return _Measured(query, database, evaluation, timing)


def _save(
    folder: Path,
    method: HashMethod,
    dataset: Dataset,
    relevant: Mapping[str, Any],
    config: RunConfig,
    measured: _Measured,
) -> None:
    """Write the files of a finished run, except for its record."""
    save_weights(folder / MODEL, method, config)
    parts = {name: (part.images.ids, part.labels) for name, part in dataset.parts().items()}
    save_codes(folder / CODES, measured.query, measured.database, parts, relevant.get("neighbours"))
    curves(measured.evaluation).to_csv(folder / CURVES, index=False)
    save_queries(folder / QUERIES, measured.evaluation, dataset.query.images.ids)
    (folder / STARTED).unlink()


def build_record(
    config: RunConfig,
    split: SplitRecord,
    database: Codes,
    evaluation: Evaluation,
    timing: Timing,
    **fields: Any,
) -> Record:
    """Build a record from the evaluation of codes; `fields` contains the other fields."""
    return Record(
        method=config.method,
        dataset=config.dataset,
        protocol=config.protocol,
        bits=config.bits,
        seed=config.seed,
        config=config.model_dump(mode="json"),
        split=split,
        metrics={name: Metric(**values) for name, values in evaluation.to_dict()["metrics"].items()},
        queries_without_relevant=evaluation.queries_without_relevant,
        health=code_health(database, evaluation),
        timing=timing,
        created=datetime.now(timezone.utc),
        evaluator=VERSION,
        **fields,
    )


def threads_note(record: Record) -> str | None:
    """Describe how the number of threads differs from that of a run on a CPU; None if it does not."""
    now, last = torch.get_num_threads(), record.environment.get("threads")
    earlier = record.environment.get("threads_before_stop")
    counts = [*(earlier if isinstance(earlier, list) else ()), last]
    if record.config.get("device") != "cpu" or last is None or counts == [now]:
        return None
    threads = "1 thread" if counts == [1] else f"{' and then '.join(map(str, counts))} threads"
    return f"it was made with {threads}; this process has {now}, which would give other figures"


def _thread_counts(folder: Path, device: str) -> list[int]:
    """Return the numbers of threads that a run has used: before each stop, if they differ, and now."""
    now = torch.get_num_threads()
    try:
        earlier = [int(count) for count in read_json(folder / STATES / IDENTITY)[THREADS]] or [now]
    except (OSError, ValueError, KeyError, TypeError):  # a new run, or a checkpoint of an older version
        return [now]
    if earlier[-1:] == [now]:
        return earlier
    if device == "cpu":  # on a GPU the number changes no figure
        warn(
            f"the number of threads was {earlier[-1]} until the run was stopped and is {now} now, so the "
            "figures will differ from those of either number; set OMP_NUM_THREADS="
            f"{earlier[-1]} to continue as before"
        )
    return [*earlier, now]
