"""The options of a run, and the summary of its training."""

from __future__ import annotations

from dataclasses import dataclass

from hashbench.results.record import SelectedEpoch


@dataclass(frozen=True)
class RunOptions:
    """Options of how a run is carried out; they do not change its results.

    Attributes:
        workers: Number of processes that load images.
        resume: Continue from the last checkpoint of a run that was stopped.
        save_every: Seconds between checkpoints.
        profile: Number of steps to record in a profiler trace; 0: no trace.
        accept_stale: Keep a record of the same run by another version of the source code.
        name: Name of the configuration in reports, for its record; None: that of the method.
        track: Names of experiment trackers; see `hashbench.training.tracking`.
    """

    workers: int = 0
    resume: bool = False
    save_every: float = 300.0
    profile: int = 0
    accept_stale: bool = False
    name: str | None = None
    track: tuple[str, ...] = ()


DEFAULT = RunOptions()


@dataclass(frozen=True)
class TrainingSummary:
    """Duration, speed and result of a training.

    Attributes:
        seconds: Duration, including the time before a stop.
        peak_memory: Bytes; see `hashbench.training.throughput.peak_memory`.
        images_per_second: Training images (not views) of all processes; None if no steps were trained.
        waiting: Share of the time of the steps that was spent waiting for data.
        resumed: How often the training was resumed.
        selected: The epoch whose weights are the result; None for the last one, without validation.
        feature_seconds: Time that the features of the training images took, which `seconds` excludes; None if
            they are not computed in advance.
    """

    seconds: float
    peak_memory: int
    images_per_second: float | None = None
    waiting: float | None = None
    resumed: int = 0
    selected: SelectedEpoch | None = None
    feature_seconds: float | None = None
