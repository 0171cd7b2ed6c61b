"""What a user may choose about a dataset, beside its protocol; all of it is in the record of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hashbench.config import Section

LabelFormat = Literal["auto", "multihot", "counts", "id", "ids"]


def _not_empty(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("expected a folder, got an empty text")
    return value


class DataOptions(Section):
    """Options of every dataset."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the draw, where the protocol draws."""
    unlabelled: Literal["keep", "drop", "error"] = "keep"
    """Queries and database images without any label."""
    leaks: Literal["keep", "drop"] = "keep"
    """Queries that are also in the database; `drop` takes them out of the database."""
    packed: bool = True
    """Use the packed copy of the images, if `hashbench data prepare --pack` made one."""


class FileOptions(DataOptions):
    """Options of datasets whose images are files."""

    missing: Literal["error", "skip"] = "error"
    """Listed images that are not there."""
    exif: bool = False
    """Turn images as their EXIF orientation says; no published number does."""
    truncated: bool = False
    """Accept files that end too early; what is missing of the image is grey or black."""


class ListOptions(FileOptions):
    """Options of datasets that can be split by list files."""

    lists: Annotated[Path | None, BeforeValidator(_not_empty)] = None
    """Folder of the lists for the protocol `lists`; None: the dataset's own folder."""
    label_format: LabelFormat = "auto"
    """Of the lists: `multihot` (0 or 1 a class), `counts` (above 0 means yes), `id` (one class id), `ids`
    (any number of class ids); `auto`: `id` where lines have one value, `ids` in a file `…_label.txt` whose
    lines differ in length, else `multihot`."""
    classes: int | None = Field(default=None, gt=0, le=1_000_000)
    """Number of classes of the lists, where neither a line nor a file `classes.txt` tells it."""
    columns: str | None = None
    """Order of the label columns of the lists, by its name; see the end of `hashbench data info`."""
    train: int | None = Field(default=None, gt=0)
    """Training images to draw from the database, where the lists have none."""
    query: int | None = Field(default=None, gt=0)
    """Queries to draw, where there is only one list of all images; the others are the database."""


SPLIT_OPTIONS = frozenset(ListOptions.model_fields) - {"exif", "truncated", "packed"}
"""Options that a split's fingerprint covers, so that a run that was done with others of them is the same."""
