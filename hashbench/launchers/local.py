"""Commands in parallel processes of this machine, with a GPU or a share of the cores each."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hashbench.errors import HashbenchError, UsageError, printable
from hashbench.launchers import LAUNCHED
from hashbench.runtime.preemption import PreemptionError

_TAIL = 4096  # bytes of a log that its last line is searched in
_ERRORS = {UsageError.exit_code: UsageError, PreemptionError.exit_code: PreemptionError}
_ORDER = ("running", "failed", "claimed", "waiting", "done")


def slots(jobs: int | None, gpus: Sequence[int] | None, device: str) -> list[dict[str, str]]:
    """Return the environment variables of each of the processes that run at the same time.

    Args:
        jobs: Number of processes; None: one per GPU, or one on a CPU.
        gpus: Numbers of GPUs, as torch counts them; None: all.
        device: "cpu" or "cuda".

    Raises:
        UsageError: There is no such GPU.
    """
    import torch  # here, since jobs of a cluster import this module

    names: list[str] = []
    if device == "cuda":
        count = torch.cuda.device_count()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        if unknown := [gpu for gpu in gpus or () if gpu >= count]:
            raise UsageError(f"--gpus: torch sees {count} GPUs, from 0 to {count - 1}, got {unknown[0]}")
        names = [visible.split(",")[gpu] for gpu in (range(count) if gpus is None else gpus)]
    elif gpus is not None:
        raise UsageError("--gpus: the runs use the CPU; leave it out, or choose --device cuda")
    jobs = jobs or len(names) or 1
    threads = str(max(1, cores() // jobs))
    shared = {LAUNCHED: "1"}
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        if not os.environ.get(name):
            shared[name] = threads
    gpu_of = [{"CUDA_VISIBLE_DEVICES": names[job % len(names)]} if names else {} for job in range(jobs)]
    return [{**shared, **gpu} for gpu in gpu_of]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Child:
    """A process that carries out a command, with its output in a file.

    Attributes:
        command: The words of the command.
        log: The file of its output, to which it is appended.
        variables: Its environment variables, in addition to those of this process.
        gave_way: It was stopped because another process carries out the same run.
    """

    command: Sequence[str]
    log: Path
    variables: dict[str, str]
    gave_way: bool = False
    process: subprocess.Popen[bytes] = field(init=False)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            # In a session of its own, so that Ctrl-C reaches it only through `stop`.
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **self.variables}, start_new_session=True,
            )  # fmt: skip

    def error(self) -> HashbenchError:
        """Return the error of a process that has failed, with the last line of its output."""
        code = self.process.returncode
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        line = last_line(self.log).removeprefix("hashbench: ").removeprefix("error: ")
        return _ERRORS.get(code, HashbenchError)(f"{f'{line} ' if line else ''}({ended}; log {self.log})")


def stop(children: Sequence[Child]) -> None:
    """Stop processes so that they save their states, and wait for them; a further signal kills them."""
    for child in children:
        child.process.terminate()
    try:
        for child in children:
            child.process.wait()
    finally:
        for child in children:
            if child.process.poll() is None:
                os.killpg(child.process.pid, signal.SIGKILL)


def last_line(log: Path) -> str:
    """Return the last line of a file that is not empty; an empty text if there is none."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").split("\n")
        return next((printable(line.strip()) for line in reversed(lines) if line.strip()), "")
    return ""


@dataclass
class Row:
    """A run in the table of `board`."""

    name: str
    state: str = "waiting"
    note: str = ""
    child: Child | None = None


@contextmanager
def board(rows: Sequence[Row]) -> Iterator[None]:
    """Show a table of runs on a terminal while the block runs, those that are running first."""

    def table() -> Table:
        shown = Table("run", "state", "time", "", box=None, pad_edge=False)
        for row in sorted(rows, key=lambda row: _ORDER.index(row.state)):
            child, note = row.child, row.note
            seconds = f"{time.monotonic() - child.started:.0f} s" if child else ""
            line = Text(last_line(child.log) if child else note, no_wrap=True, overflow="ellipsis")
            shown.add_row(Text(row.name), row.state, seconds, line)
        return shown

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with Live(get_renderable=table, console=console, refresh_per_second=2):
        yield
