"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import send_to_device, set_seed
from torch import Tensor
from torch.profiler import profile

from hashbench import distributed
from hashbench.config import RunConfig, ViewConfig
from hashbench.encoding.features import FeatureExtractor
from hashbench.errors import HashbenchError
from hashbench.images.image_sets import Images
from hashbench.method.base import FeatureMethod, HashMethod, ShallowMethod
from hashbench.results.record import LOG, STATES, TRACE
from hashbench.runtime import preemption
from hashbench.runtime.console import info, is_main_process
from hashbench.runtime.progress import progress, with_forecast
from hashbench.runtime.torch_errors import stopped_loader, translate_errors
from hashbench.training.checkpoints import (
    TrainerState,
    find_checkpoint,
    last_step,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from hashbench.training.dataloader import Batch, Batches, EpochBatches, FeatureBatches, image_batches
from hashbench.training.log import JsonLinesLog
from hashbench.training.loss_module import LossModule, PendingLosses, create_accelerator
from hashbench.training.model_selection import BestCheckpoint, Score, load_trained_weights, trained_weights
from hashbench.training.optim import create_optimizer, create_schedule
from hashbench.training.options import DEFAULT, RunOptions, TrainingSummary
from hashbench.training.throughput import Meter, peak_memory, profiler, reset_peak_memory
from hashbench.training.tracking import Trackers
from hashbench.training.training_images import TrainingImages


def train(
    method: HashMethod,
    images: Images,
    config: RunConfig,
    folder: Path,
    execution: RunOptions = DEFAULT,
    score: Score | None = None,
    trackers: Trackers | None = None,
) -> TrainingSummary:
    """Train a method in place.

    Args:
        method: The method to train or to fit.
        images: The training images, without labels.
        config: The run; `seed` determines order and augmentation, whatever the number of workers.
        folder: Folder for the log, which has JSON lines: one per step, with epoch, step, seconds, learning
            rate, the loss and its parts; and one per validation, with the mAP. A method that is fitted logs
            one line, with images and seconds. During training, the folder also contains checkpoints.
        execution: Options of how to carry it out.
        score: Computes the mAP by which `config.selection` selects the epoch.
        trackers: Started here, and receive the lines of the log, of the steps only every tenth.

    Raises:
        HashbenchError: The loss is not finite (the message has the step and the parts, the log everything
            before it), or the machine failed.
        PreemptionError: SIGTERM or SIGHUP arrived; a checkpoint is saved.
    """
    if len(images) < 2:
        raise HashbenchError(f"expected at least 2 training images, got {len(images)}")
    set_seed(config.seed)
    reset_peak_memory(config.device)
    method.to(config.device)
    trackers = trackers or Trackers()
    if isinstance(method, ShallowMethod):
        trackers.start(config, 0)
        with translate_errors(config, f"fitting to {len(images):,} images", "choose a smaller backbone"):
            summary = _fit(method, images, config, folder / LOG, execution)
    else:
        with translate_errors(
            config,
            f"training with {config.training.batch_size} images a step",
            "lower --set batch_size=… (and raise accumulate=…), image size, or choose a smaller backbone",
        ):
            summary = Trainer(method, images, config, folder, execution, score, trackers).run()
    method.eval()
    return summary


def _seed(config: RunConfig) -> int:
    """Return the seed of this process in training: the run's in the main process, derived ones in others."""
    sequence = np.random.SeedSequence([config.seed, distributed.rank()])
    return config.seed if is_main_process() else int(sequence.generate_state(1)[0])


def _fit(
    method: ShallowMethod, images: Images, config: RunConfig, log: Path, execution: RunOptions
) -> TrainingSummary:
    if execution.profile:
        info(f"no trace is written: {config.method} is fitted, without training steps")
    extractor = FeatureExtractor(method.backbone, config, execution.workers)
    features = extractor(images, "train")
    start = time.monotonic()
    method.fit(features.to(config.device, copy=True))  # a copy, since the cached ones must not change
    # Other processes drew other random numbers.
    load_trained_weights(method, distributed.broadcast_object(trained_weights(method)))
    seconds = round(time.monotonic() - start, 3)
    with JsonLinesLog(log) as lines:
        lines.write(images=len(images), seconds=seconds)
    feature_seconds = round(extractor.seconds, 2)
    return TrainingSummary(seconds, peak_memory(config.device), feature_seconds=feature_seconds)


class Trainer:
    """Gradient descent on batches of views or features, with checkpoints, a log and validation."""

    def __init__(
        self,
        method: HashMethod,
        images: Images,
        config: RunConfig,
        folder: Path,
        execution: RunOptions,
        score: Score | None,
        trackers: Trackers,
    ) -> None:
        """Prepare the batches, the optimizer and the device; see `train` for the arguments."""
        self.method, self.config, self.folder, self.execution = method, config, folder, execution
        self.trackers = trackers
        self.start = self.saved = time.monotonic()
        on_features = (
            isinstance(method, FeatureMethod) and method.backbone.constant and config.views == ViewConfig()
        )
        extractor = FeatureExtractor(method.backbone, config, execution.workers)
        training = TrainingImages(images, extractor, config.device)
        method.prepare(training)
        set_seed(_seed(config))
        self.order = EpochBatches(len(images), config)
        if on_features:
            self.batches: Batches = FeatureBatches(training.shared_features, self.order, method.views)
        else:
            self.batches = image_batches(images, self.order, method.views, config, execution.workers)
        self.feature_seconds = training.seconds
        self.start += extractor.waited
        # Heads on features are trained in full precision.
        self.accelerator = create_accelerator(config, "float32" if on_features else config.training.precision)
        losses = LossModule(method, config, on_features)
        optimizer = create_optimizer(method, config.optimizer, config.device)
        self.schedule, self.scheduled_by_step = create_schedule(optimizer, config, self.order.batches)
        self.model, self.optimizer = self.accelerator.prepare(losses, optimizer)
        self.selection = BestCheckpoint(config, score)
        self.meter = Meter()
        self.losses = PendingLosses(10 if config.device == "cuda" else 1)  # reading makes a GPU wait
        self.state = TrainerState()
        self.stateful: dict[str, Any] = {  # parts with `state_dict` and `load_state_dict`
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "selection": self.selection,
            "meter": self.meter,
        }
        if self.accelerator.scaler is not None:
            self.stateful["scaler"] = self.accelerator.scaler
        self.stepping = False

    def run(self) -> TrainingSummary:
        """Train from the last checkpoint, or from the beginning, to the end."""
        epochs, total = self.config.training.epochs, self.config.training.epochs * self.order.batches
        if self.execution.resume and self._load_checkpoint():
            info(f"resuming at step {self.state.step} of {total}")
        self.trackers.start(self.config, self.state.step)
        with ExitStack() as stack:
            self.log = stack.enter_context(JsonLinesLog(self.folder / LOG, self.state.log_bytes))
            advance = stack.enter_context(progress("train", total, done=self.state.step))
            left = total - self.state.step
            self.advance = with_forecast(advance, left, f"training {self.config.method}", self.config)
            trace = stack.enter_context(self._profiler())
            stack.enter_context(preemption.at_a_step())
            self.model.train()
            self._validate_if_due()
            while self.state.epoch < epochs and not self.selection.exhausted:
                with self._saved_if_the_loader_stops():
                    for batch in self.meter.steps(self.batches.epoch(self.state.epoch, self.state.batch)):
                        self._step(batch)
                        if trace is not None:
                            trace.step()
                        self._save_if_due()
                self._log_losses(early=True)
                self._end_epoch()
                self._save_if_due()
                self._validate_if_due()
            self._save()
        return TrainingSummary(
            self._seconds(),
            peak_memory(self.config.device),
            round(self.meter.images / self.meter.seconds, 2),
            round(self.meter.waited / self.meter.seconds, 4),
            self.state.resumed,
            self.selection.finish(self.method),
            self.feature_seconds,
        )

    def _step(self, batch: Batch) -> None:
        """Train on a batch; update the weights if it is the last one of its accumulated step."""
        state, training, accumulate = self.state, self.config.training, self.config.training.accumulate
        first = state.batch // accumulate * accumulate  # of the batches whose gradients are accumulated
        accumulated = min(accumulate, self.order.batches - first)
        last = state.batch == first + accumulated - 1
        rate = self.optimizer.param_groups[-1]["lr"]
        self.stepping = True
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            inputs, indices = send_to_device(batch, self.config.device, non_blocking=True)
            given = {"indices": indices} if self.method.uses_indices else {}
            losses: dict[str, Tensor] = self.model(*inputs, **given)
            at = {"epoch": state.epoch, "step": state.step, "seconds": self._seconds(), "lr": rate}
            self.losses.add(self.method, losses, **at, duration=self.meter.seconds)
            self._log_losses()
            self.accelerator.backward(losses["loss"] / accumulated)
        if last:
            if training.gradient_clip is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), training.gradient_clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.scheduled_by_step:
                self.schedule.step()
        state.batch += 1
        state.step += 1
        self.stepping = False

    def _log_losses(self, *, early: bool = False) -> None:
        """Log the losses that are read from the device now."""
        for entry, losses in self.losses.read(early=early):
            line = {name: value for name, value in entry.items() if name != "duration"} | losses
            self.log.write(**line)
            self.trackers.write_step(line, self.order.images / self.order.batches, entry["duration"])
            if not math.isfinite(losses["loss"]):
                raise self._not_finite(entry, losses)
            epoch = f"epoch {entry['epoch'] + 1}/{self.config.training.epochs}"
            self.advance(1, f"{epoch}, loss {losses['loss']:.4g}")

    def _end_epoch(self) -> None:
        if not self.scheduled_by_step:
            self.schedule.step()
        self.meter.images += self.order.images
        self.state.epoch += 1
        self.state.batch, self.state.validation_due = 0, True

    def _validate_if_due(self) -> None:
        """Compute the mAP once after an epoch, if the run selects its epoch by that."""
        if not self.state.validation_due:
            return
        value = self.selection.validate(self.method, self.state.epoch)
        self.state.validation_due = False
        if value is not None:
            at = {"epoch": self.state.epoch - 1, "step": self.state.step - 1, "seconds": self._seconds()}
            entry = {**at, self.selection.metric: value}
            self.log.write(**entry)
            self.trackers.write(entry)
            self.model.train()

    def _not_finite(self, entry: dict[str, float], losses: dict[str, float]) -> HashbenchError:
        parts = ", ".join(f"{name} {value}" for name, value in losses.items())
        good = last_step(self.folder / STATES)
        kept = "" if good is None else f", the checkpoint of step {good} in {self.folder / STATES}"
        return HashbenchError(
            f"the loss is not finite at step {entry['step']} (epoch {entry['epoch']}): {parts}; "
            "try a lower --set lr=…, --set gradient_clip=1 or --set precision=float32; "
            f"the log is {self.folder / LOG}{kept}"
        )

    @contextmanager
    def _saved_if_the_loader_stops(self) -> Iterator[None]:
        """Save a checkpoint if a worker process was stopped; of several processes, none could save alone."""
        try:
            yield
        except RuntimeError as error:
            if stopped_loader(error) and distributed.world_size() == 1 and not self._within_step:
                self._save()
            raise

    def _save_if_due(self) -> None:
        """Save a checkpoint at intervals and on a signal, but only between steps of the optimizer."""
        if self._within_step:
            return
        stop = preemption.requested()
        due = is_main_process() and time.monotonic() - self.saved >= self.execution.save_every
        if distributed.any_rank(stop or due):
            self._save()
            if distributed.any_rank(stop):
                raise preemption.stopped(self.state.step)

    @property
    def _within_step(self) -> bool:
        """True within a step of the optimizer, and after the last batch of an epoch until its end.

        Torch reports that a worker process died at any time, even within a step.
        """
        batch = self.state.batch
        return self.stepping or batch % self.config.training.accumulate != 0 or batch >= self.order.batches

    def _save(self) -> None:
        """Save a checkpoint, unless a weight is not finite, which the next step reports."""
        self._log_losses(early=True)
        self.saved = time.monotonic()
        if not all(bool(tensor.isfinite().all()) for tensor in self.method.state_dict().values()):
            return
        rng_states = distributed.all_gather_object(rng_state(self.config.device == "cuda"))
        if not is_main_process():
            return
        # The log first: a checkpoint must not count on lines that are not on disk.
        self.state.seconds, self.state.log_bytes = self._seconds(), self.log.sync()
        content = {
            "progress": asdict(self.state),
            "weights": trained_weights(self.method),
            "parts": {name: part.state_dict() for name, part in self.stateful.items()},
            "rng": rng_states,
        }
        save_checkpoint(self.folder / STATES, self.state.step, content)

    def _load_checkpoint(self) -> bool:
        """Load the newest undamaged checkpoint, which the main process finds; return False without one."""
        path = distributed.broadcast_object(
            find_checkpoint(self.folder / STATES) if is_main_process() else None
        )
        if path is None:
            return False
        content = load_checkpoint(path)
        self.state = TrainerState(**content["progress"])
        self.state.resumed += 1
        self.start = time.monotonic() - self.state.seconds
        load_trained_weights(self.method, content["weights"])
        for name, part in self.stateful.items():
            part.load_state_dict(content["parts"][name])
        set_rng_state(content["rng"][distributed.rank()])
        return True

    def _profiler(self) -> profile | nullcontext[None]:
        if not self.execution.profile or not is_main_process():
            return nullcontext()
        return profiler(self.execution.profile, self.config.device == "cuda", self.folder / TRACE)

    def _seconds(self) -> float:
        return round(time.monotonic() - self.start, 3)
