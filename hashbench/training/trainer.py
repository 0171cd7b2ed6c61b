"""The one training loop."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import Tensor, nn
from torch.profiler import profile

from hashbench import distributed
from hashbench.config import RunConfig, ViewConfig
from hashbench.encoding.features import pooled_features
from hashbench.errors import HashbenchError
from hashbench.images.gpu_transforms import DeviceViews
from hashbench.images.image_sets import Images
from hashbench.method.base import FeatureMethod, HashMethod, ShallowMethod
from hashbench.results.record import LOG, STATES, TRACE, SelectedEpoch
from hashbench.runtime import preemption
from hashbench.runtime.console import info, is_main_process
from hashbench.runtime.progress import Advance, progress
from hashbench.runtime.torch_errors import stopped_loader, translate_errors
from hashbench.training.checkpoints import (
    find_checkpoint,
    last_step,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from hashbench.training.dataloader import Batch, EpochBatches, FeatureBatches, ViewBatches
from hashbench.training.model_selection import BestCheckpoint, Score, load_trained_weights, trained_weights
from hashbench.training.optim import create_optimizer, create_schedule
from hashbench.training.throughput import Meter, peak_memory, profiler, reset_peak_memory

_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}  # accelerate's names


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; changes no number.

    Attributes:
        workers: Processes that load images.
        resume: Go on from the state of a run that was stopped.
        save_every: Seconds from one state to the next.
        profile: Steps of which a profiler's trace is written; 0: no trace.
    """

    workers: int = 0
    resume: bool = False
    save_every: float = 300.0
    profile: int = 0


DEFAULT = RunOptions()


@dataclass(frozen=True)
class TrainingSummary:
    """What a training says of itself.

    Attributes:
        seconds: How long it took, what came before a stop included.
        images_per_second: Training images, not views, of all processes; None: nothing was trained by steps.
        waiting: Share of the time that steps waited for their data.
        peak_memory: Bytes; see `hashbench.training.throughput.peak_memory`.
        resumed: How often it went on from a state.
        selected: The epoch that is the result; None: the last one, without a look at the mAP.
    """

    seconds: float
    peak_memory: int
    images_per_second: float | None = None
    waiting: float | None = None
    resumed: int = 0
    selected: SelectedEpoch | None = None


def train(
    method: HashMethod,
    images: Images,
    config: RunConfig,
    folder: Path,
    execution: RunOptions = DEFAULT,
    score: Score | None = None,
) -> TrainingSummary:
    """Train a method in place.

    Args:
        method: What to train, or to fit.
        images: The training images, without labels.
        config: The run; `seed` fixes order and augmentation whatever the number of workers.
        folder: Gets the log as JSON lines, one a step: epoch, step, seconds, learning rate, the loss and its
            parts; and one a look at the mAP. For a method that is fitted, one line: images and seconds. While
            training goes on, also its states.
        execution: How.
        score: Gives the mAP by which `config.selection` chooses the epoch.

    Raises:
        HashbenchError: The loss is not finite; the message gives step and parts, the log all before. Or the
            machine failed.
        PreemptionError: SIGTERM or SIGHUP came; the state is saved.
    """
    if len(images) < 2:
        raise HashbenchError("training needs 2 images at least")
    set_seed(_seed(config))
    reset_peak_memory(config.device)
    method.to(config.device)
    if isinstance(method, ShallowMethod):
        with translate_errors(config, f"fitting to {len(images):,} images", "choose a smaller backbone"):
            training = _fit(method, images, config, folder / LOG, execution)
    else:
        with translate_errors(
            config,
            f"training with {config.training.batch_size} images a step",
            "lower --set batch_size=… (and raise accumulate=…), image size, or choose a smaller backbone",
        ):
            training = Trainer(method, images, config, folder, execution, score).run()
    method.eval()
    return training


def _seed(config: RunConfig) -> int:
    """Of the generators: that of the run in the first process, and others in the others."""
    sequence = np.random.SeedSequence([config.seed, distributed.rank()])
    return config.seed if is_main_process() else int(sequence.generate_state(1)[0])


def _fit(
    method: ShallowMethod, images: Images, config: RunConfig, log: Path, execution: RunOptions
) -> TrainingSummary:
    if execution.profile:
        info(f"{config.method} is fitted, and has no steps to profile")
    start = time.monotonic()
    features = pooled_features(method.backbone, images, config, workers=execution.workers, task="train")
    method.fit(features.to(config.device, copy=True))  # kept, and not the method's to change
    load_trained_weights(
        method, distributed.broadcast_object(trained_weights(method))
    )  # what it drew differs
    seconds = round(time.monotonic() - start, 3)
    if is_main_process():
        log.write_text(_log_line(images=len(images), seconds=seconds), encoding="utf-8")
    return TrainingSummary(seconds, peak_memory(config.device))


class Trainer:
    """Stochastic gradient descent, in one of its forms, and where it stands."""

    def __init__(
        self,
        method: HashMethod,
        images: Images,
        config: RunConfig,
        folder: Path,
        execution: RunOptions,
        score: Score | None,
    ) -> None:
        self.method, self.config, self.folder, self.execution = method, config, folder, execution
        self.before, self.start, self.saved = 0.0, time.monotonic(), time.monotonic()
        on_features = (
            isinstance(method, FeatureMethod) and method.backbone.constant and config.views == ViewConfig()
        )
        workers = execution.workers
        self.order = EpochBatches(len(images), config)
        self.batches: FeatureBatches | ViewBatches
        if on_features:
            features = pooled_features(method.backbone, images, config, workers=workers, task="features")
            self.batches = FeatureBatches(features.to(config.device), self.order, method.views)
        else:
            self.batches = ViewBatches(images, self.order, method.views, config, workers)
        # Heads on features are computed in full precision.
        precision = "float32" if on_features else config.training.precision
        # Accelerate keeps device and precision of the first run for the process; runs of a grid may differ.
        AcceleratorState._reset_state(reset_partial_state=distributed.world_size() == 1)
        for name in ("GRADIENT_ACCUMULATION_STEPS", "DYNAMO_BACKEND"):  # of a user's `accelerate config`
            os.environ.pop(f"ACCELERATE_{name}", None)
        self.accelerator = Accelerator(
            cpu=config.device == "cpu",
            mixed_precision=_PRECISIONS[precision],
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        if isinstance(method, FeatureMethod):  # whose head sees the whole batch
            if not method.backbone.frozen:
                distributed.synchronize_batch_norm(method.backbone, config.device)
        else:
            distributed.synchronize_batch_norm(method, config.device)
        losses = _Losses(method, config, on_features)
        losses.to(memory_format=torch.channels_last)  # convolutions train 1.7 times as fast on a CPU
        if config.training.compile:
            losses.compile()
        optimizer = create_optimizer(method, config.optimizer, config.device)
        self.schedule, self.moves_by_step = create_schedule(optimizer, config, self.order.batches)
        self.model, self.optimizer = self.accelerator.prepare(losses, optimizer)
        self.selection = BestCheckpoint(config, score)
        self.meter = Meter()
        self.epoch = self.batch = self.step = self.resumed = 0
        self.stepping = self.look_due = False
        self.log: TextIO | None = None

    def run(self) -> TrainingSummary:
        """Train from where it stands to the end."""
        training = self.config.training
        state = self._last_state() if self.execution.resume else None
        total = training.epochs * self.order.batches
        if state is not None:
            self._restore(state)
            info(f"going on from step {self.step} of {total}")
        with ExitStack() as stack:
            self.log = self._open_log(stack, state)
            advance = stack.enter_context(progress("train", total, done=self.step))
            steps = stack.enter_context(self._profiler())
            stack.enter_context(preemption.at_a_step())
            self.model.train()
            self._look()
            while self.epoch < training.epochs and not self.selection.exhausted:
                try:
                    for batch in self.meter.steps(self.batches.epoch(self.epoch, self.batch)):
                        self._step(batch, advance)
                        if steps is not None:
                            steps.step()
                        self._save_if_due()
                except RuntimeError as error:
                    # Between steps there is a state to save, if no other process must have a part in it.
                    if stopped_loader(error) and distributed.world_size() == 1 and not self._within_step:
                        self._save()
                    raise
                self._end_epoch()
                self._save_if_due()
                self._look()
            self._save()
        return TrainingSummary(
            self._seconds(),
            peak_memory(self.config.device),
            round(self.meter.images / self.meter.seconds, 2),
            round(self.meter.waited / self.meter.seconds, 4),
            self.resumed,
            self.selection.finish(self.method),
        )

    def _step(self, batch: Batch, advance: Advance) -> None:
        training, groups = self.config.training, self.config.training.accumulate
        first = self.batch // groups * groups  # of the batches whose gradients make this step
        together = min(groups, self.order.batches - first)
        last = self.batch == first + together - 1
        rate = self.optimizer.param_groups[-1]["lr"]
        self.stepping = True
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            losses: dict[str, Tensor] = self.model(
                *(part.to(self.config.device, non_blocking=True) for part in batch)
            )
            numbers = _numbers(self.method, losses)
            self._write(epoch=self.epoch, step=self.step, seconds=self._seconds(), lr=rate, **numbers)
            if not math.isfinite(numbers["loss"]):
                raise self._not_finite(numbers)
            self.accelerator.backward(losses["loss"] / together)
        if last:
            if training.gradient_clip is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), training.gradient_clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.moves_by_step:
                self.schedule.step()
        self.batch += 1
        self.step += 1
        self.stepping = False
        advance(1, f"epoch {self.epoch + 1}/{training.epochs}, loss {numbers['loss']:.4g}")

    def _end_epoch(self) -> None:
        if not self.moves_by_step:
            self.schedule.step()
        self.meter.images += self.order.images
        self.epoch, self.batch, self.look_due = self.epoch + 1, 0, True

    def _look(self) -> None:
        """Look at the mAP after an epoch, if it is chosen by that, once."""
        value = self.selection.look(self.method, self.epoch) if self.look_due else None
        self.look_due = False
        if value is not None:
            at = {"epoch": self.epoch - 1, "step": self.step - 1, "seconds": self._seconds()}
            self._write(**at, **{self.selection.metric: value})
            self.model.train()

    def _not_finite(self, numbers: dict[str, float]) -> HashbenchError:
        parts = ", ".join(f"{name} {number}" for name, number in numbers.items())
        good = last_step(self.folder / STATES)
        kept = "" if good is None else f", the state of step {good} in {self.folder / STATES}"
        return HashbenchError(
            f"the loss is not finite at step {self.step} (epoch {self.epoch}): {parts}; "
            "try a lower --set lr=…, --set gradient_clip=1 or --set precision=float32; "
            f"the log is {self.folder / LOG}{kept}"
        )

    def _save_if_due(self) -> None:
        """Save now and then, and when asked to stop; only between steps of the optimizer."""
        if self._within_step:
            return
        stop = preemption.requested()
        due = is_main_process() and time.monotonic() - self.saved >= self.execution.save_every
        if distributed.any_rank(stop or due):
            self._save()
            if distributed.any_rank(stop):
                raise preemption.stopped(self.step)

    @property
    def _within_step(self) -> bool:
        """Whether it stands in the middle of a step of the optimizer, or before the end of an epoch.

        Torch says that a loader's process died at any time, as in the middle of a step.
        """
        between = self.batch % self.config.training.accumulate == 0 and self.batch < self.order.batches
        return self.stepping or not between

    def _save(self) -> None:
        """Save the state, if it is good."""
        self.saved = time.monotonic()
        if not all(bool(tensor.isfinite().all()) for tensor in self.method.state_dict().values()):
            return  # the next step says so
        scaler = self.accelerator.scaler
        random = distributed.all_gather_object(rng_state(self.config.device == "cuda"))
        if not is_main_process():
            return
        assert self.log is not None
        self.log.flush()
        os.fsync(self.log.fileno())  # a state never knows more of the log than the disk does
        save_checkpoint(
            self.folder / STATES,
            self.step,
            {
                "epoch": self.epoch,
                "batch": self.batch,
                "step": self.step,
                "look_due": self.look_due,
                "resumed": self.resumed,
                "seconds": self._seconds(),
                "meter": vars(self.meter),
                "log": self.log.tell(),
                "weights": trained_weights(self.method),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "selection": self.selection.state(),
                "random": random,
            },
        )

    def _last_state(self) -> dict[str, Any] | None:
        """The newest state that is whole, which the first process finds."""
        found = distributed.broadcast_object(
            find_checkpoint(self.folder / STATES) if is_main_process() else None
        )
        return load_checkpoint(found) if found is not None else None

    def _restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.look_due = state["look_due"]
        self.resumed, self.before = state["resumed"] + 1, state["seconds"]
        self.meter = Meter(**state["meter"])
        load_trained_weights(self.method, state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.selection.restore(state["selection"])
        set_rng_state(state["random"][distributed.rank()])

    def _open_log(self, stack: ExitStack, state: dict[str, Any] | None) -> TextIO | None:
        """The log, without what a run that was stopped wrote after its state; of the first process alone."""
        if not is_main_process():
            return None
        log = stack.enter_context((self.folder / LOG).open("a", encoding="utf-8"))
        length, written = 0 if state is None else state["log"], os.fstat(log.fileno()).st_size
        if written < length:
            raise HashbenchError(
                f"{self.folder / LOG} has {written:,} bytes, and had {length:,} when the state was saved; "
                "put it back, or start anew without --resume"
            )
        log.truncate(length)
        log.seek(0, os.SEEK_END)  # where `tell` else is before anything is written
        return log

    def _profiler(self) -> profile | nullcontext[None]:
        if not self.execution.profile or not is_main_process():
            return nullcontext()
        return profiler(self.execution.profile, self.config.device == "cuda", self.folder / TRACE)

    def _write(self, **entry: float) -> None:
        if self.log is not None:
            self.log.write(_log_line(**entry))

    def _seconds(self) -> float:
        return round(self.before + time.monotonic() - self.start, 3)


def _numbers(method: HashMethod, losses: dict[str, Tensor]) -> dict[str, float]:
    """The losses as numbers, fetched from the device at once."""
    if "loss" not in losses:
        raise HashbenchError(f"{type(method).__name__}.training_losses gives no 'loss'")
    numbers = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    return dict(zip(losses, numbers, strict=True))


def _log_line(**entry: float) -> str:
    """A line of JSON, which has no number for what is not finite."""
    return json.dumps({name: v if math.isfinite(v) else str(v) for name, v in entry.items()}) + "\n"


class _Losses(nn.Module):
    """The losses of a batch of views, squares or features, as the module that accelerate wraps."""

    def __init__(self, method: nn.Module, config: RunConfig, on_features: bool) -> None:
        super().__init__()
        self.method, self.on_features = method, on_features
        self.augment = DeviceViews(config.images, config.views) if config.views.on_device else None

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        method: Any = self.method
        if self.on_features:
            losses: dict[str, Tensor] = method.feature_losses(*inputs)
            return losses
        views: Sequence[Tensor] = inputs if self.augment is None else self.augment(*inputs, method.views)
        losses = method.training_losses(*(view.to(memory_format=torch.channels_last) for view in views))
        return losses
