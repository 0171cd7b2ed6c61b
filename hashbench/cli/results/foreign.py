"""The options of `hashbench evaluate` that leave a record of the codes of another program."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashbench.cli.datasets import DataRoot
from hashbench.cli.options import RESULTS, Results
from hashbench.errors import HashbenchError, UsageError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.data.dataset import Dataset
    from hashbench.evaluation import Evaluation


@dataclass(frozen=True)
class Recording:
    """The facts that a user states about codes of another program."""

    method: str
    backbone: str
    results: Path
    data_root: Path | None

    def write(
        self,
        path: Path | None,
        loaded: Mapping[str, Any],
        evaluation: "Evaluation",
        settings: Mapping[str, Any],
        split: str | None,
        seed: int | None,
    ) -> None:
        """Write the record of a file of codes.

        Raises:
            UsageError: The split has another form than DATASET@PROTOCOL, the codes are not in one file, or
                their labels are not those of the split.
        """
        from hashbench.data.load import load_dataset
        from hashbench.experiment.foreign import UNCHECKED, record_codes
        from hashbench.runtime.files import sha256_of

        dataset, at, protocol = (split or "").partition("@")
        if not (dataset and at and protocol):
            raise UsageError("--record needs the split of the codes as --dataset DATASET@PROTOCOL")
        if path is None or not path.is_file() or "R" in settings["k"]:
            raise UsageError("--record needs codes in one file, and cutoffs that are numbers or all")
        data: Dataset | None = None
        with suppress(HashbenchError):  # the data is not here
            data = load_dataset(dataset, protocol, self.data_root)
        run = record_codes(
            loaded,
            evaluation,
            {key: value for key, value in settings.items() if key != "device"},
            self.results,
            sha256=sha256_of(path),
            method=self.method,
            dataset=dataset,
            protocol=protocol,
            seed=seed or 0,
            backbone=self.backbone,
            data=data,
        )
        existed = " exists" if run.existed else ""
        info(f"record{existed}: {run.folder}" + ("" if data else f"; {UNCHECKED}"))


def recording(
    record: Annotated[
        bool,
        typer.Option("--record", help="Leave a record for tables and plots, of --dataset DATASET@PROTOCOL."),
    ] = False,
    method: Annotated[str | None, typer.Option("--method", help="Name of the method for --record.")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Name of the backbone for --record (default: unknown).")
    ] = None,
    results: Results = RESULTS,
    data_root: DataRoot = None,
) -> Recording | None:
    """Return what these options say, or None without --record."""
    if not record:
        if method or backbone:
            raise UsageError("--method and --backbone need --record")
        return None
    if not method:
        raise UsageError("--record needs the name of the method as --method NAME")
    return Recording(method, backbone or "unknown", results, data_root)
