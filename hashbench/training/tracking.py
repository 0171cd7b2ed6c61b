"""Experiment trackers such as Weights & Biases or TensorBoard, through accelerate."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from hashbench.config import RunConfig, flatten
from hashbench.errors import UsageError, reason, unknown_name
from hashbench.results.record import Record
from hashbench.runtime.console import is_main_process, warn
from hashbench.training.checkpoints import rng_state, set_rng_state

if TYPE_CHECKING:
    from typing_extensions import Self

PROJECT = "hashbench"
EVERY = 10  # steps between the values of the training: some trackers send each one over the network
_NUMBERS_ONLY = ("aim", "clearml", "dvclive", "mlflow", "swanlab")  # their `log` rejects text


def check_trackers(names: Sequence[str]) -> None:
    """Check that trackers exist and are installed.

    Raises:
        UsageError: One does not.
    """
    installed = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown_name("tracker", name, LOGGER_TYPE_TO_CLASS)
        if name in LoggerType.list() and name not in installed:
            raise UsageError(f"--track {name}: {name} is not installed; pip install {name}")


class Trackers:
    """The experiment trackers of a run, in the main process; in other processes all methods do nothing.

    A tracker that fails is dropped with a warning, and the run goes on.
    """

    def __init__(self, names: Sequence[str] = (), folder: Path = Path(), run_id: str = "") -> None:
        """Prepare trackers.

        Args:
            names: Names as in `accelerate.tracking`.
            folder: Folder for the trackers that write files and have no place of their own.
            run_id: Name of the run in the trackers.
        """
        self._names = names if is_main_process() else ()
        self._folder, self._run_id = folder, run_id
        self._active: dict[str, Any] = {}
        self._step = 0
        self._last: tuple[int, float] | None = None  # step that was logged, and seconds before it

    def start(self, config: RunConfig, step: int) -> None:
        """Start all trackers, or continue their runs if the training continues.

        Args:
            config: The run, whose settings are logged as hyperparameters.
            step: The next step; what an interrupted training logged from there on is overwritten.
        """
        self._step = step
        if not self._names:
            return
        PartialState(cpu=config.device == "cpu")  # accelerate's trackers need it
        settings = flatten(config.model_dump(mode="json"))
        parameters = {
            key: value if isinstance(value, (bool, int, float, str)) else str(value)
            for key, value in settings.items()
        }
        generators = rng_state(config.device == "cuda")  # since some trackers set seeds
        for name in self._names:
            self._attempt(name, partial(self._start, name, step, parameters))
        set_rng_state(generators)

    def _start(self, name: str, step: int, parameters: Mapping[str, Any]) -> None:
        arguments = _arguments(name, self._run_id, self._folder, step)
        create = LOGGER_TYPE_TO_CLASS[name]
        folder = [str(self._folder)] if create.requires_logging_directory else []
        title = self._run_id if name == "tensorboard" or not arguments else PROJECT
        tracker = create(title, *folder, **arguments)
        tracker.start()
        self._active[name] = tracker
        tracker.store_init_configuration(parameters)

    def write_step(self, entry: dict[str, float], images: float, seconds: float) -> None:
        """Log every tenth step, with the throughput since the one before.

        Args:
            entry: The line of the log.
            images: Mean number of images per step.
            seconds: Duration of all steps before this one.
        """
        step = int(entry["step"])
        self._step = step + 1
        if step % EVERY or not self._active:
            return
        if self._last is not None:
            steps, duration = step - self._last[0], seconds - self._last[1]
            entry = {**entry, "images_per_second": images * steps / duration}
        self._last = step, seconds
        self.write(entry)

    def write(self, entry: dict[str, float]) -> None:
        """Log a line of the log at its step."""
        values = {key: value for key, value in entry.items() if key != "step"}
        self._log(values, int(entry["step"]), self._active)

    def write_record(self, record: Record) -> None:
        """Log the numbers of a record, and the whole record where the tracker accepts text."""
        content = flatten(record.model_dump(mode="json", include={"metrics", "health", "timing"}))
        numbers = {
            key.replace(".", "/"): float(value)
            for key, value in content.items()
            if isinstance(value, (int, float))
        }
        self._log(numbers, self._step, self._active)
        text = [name for name in self._active if name not in _NUMBERS_ONLY]
        self._log({"record": record.model_dump_json(indent=2)}, self._step, text)

    def _log(self, values: Mapping[str, Any], step: int, names: Iterable[str]) -> None:
        # Most trackers allow only these characters.
        named = {re.sub(r"[^\w/]+", "_", key): value for key, value in values.items()}
        for name in list(names):
            self._attempt(name, partial(self._active[name].log, named, step=step))

    def _attempt(self, name: str, call: Callable[[], object]) -> None:
        """Call a function of a tracker; if it fails, warn and drop the tracker."""
        try:
            with redirect_stdout(sys.stderr):  # the command may print JSON there
                call()
        except Exception as error:
            self._active.pop(name, None)
            warn(f"the tracker {name} failed and is not used any more in this run: {reason(error)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name, tracker in list(self._active.items()):
            self._attempt(name, tracker.finish)


def _arguments(name: str, run_id: str, folder: Path, step: int) -> dict[str, Any]:
    """Return the arguments of a tracker that name its run, and that continue it unless the step is 0.

    Aim, ClearML and SwanLab choose the ids of their runs, so these always start new ones.
    """
    resumed = step > 0
    if name == "tensorboard":
        return {"purge_step": step}
    if name == "wandb":
        return {"name": run_id, "id": run_id, "resume": "allow" if resumed else None}
    if name == "trackio":
        return {"name": run_id, "resume": "allow" if resumed else "never"}
    if name == "mlflow":
        return {"run_name": run_id, "run_id": _mlflow_run(run_id) if resumed else None}
    if name == "comet_ml":
        import comet_ml

        key = hashlib.sha256(run_id.encode()).hexdigest()[:32]
        return {"experiment_key": key, "experiment_config": comet_ml.ExperimentConfig(name=run_id)}
    if name == "dvclive":
        return {"dir": str(folder / run_id), "resume": resumed}
    named = {"clearml": "task_name", "swanlab": "experiment_name"}
    return {named[name]: run_id} if name in named else {}


def _mlflow_run(run_id: str) -> str | None:
    """Return MLflow's own id of the newest run with this name."""
    import mlflow

    runs = mlflow.search_runs(
        filter_string=f"attributes.run_name = '{run_id}'",
        max_results=1,
        search_all_experiments=True,
        output_format="list",
    )
    return str(runs[0].info.run_id) if runs else None
