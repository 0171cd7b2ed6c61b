"""Options of datasets; the record of a run contains them."""

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
    """Random seed for protocols that draw a split."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Fraction of each part to use, drawn by the seed, for a first try."""
    unlabelled: Literal["keep", "drop", "error"] = "keep"
    """Treatment of queries and database images without a label."""
    leaks: Literal["keep", "drop"] = "keep"
    """Treatment of queries that are also in the database; `drop` removes them from the database."""
    packed: bool = True
    """Use the packed copy of the images, if `hashbench data prepare --pack` created one."""


class FileOptions(DataOptions):
    """Options of datasets whose images are files."""

    missing: Literal["error", "skip"] = "error"
    """Treatment of listed images that do not exist."""
    exif: bool = False
    """Rotate images by their EXIF orientation, which no published result does."""
    truncated: bool = False
    """Accept truncated files; the missing part of the image is grey or black."""


class RatioOptions(DataOptions):
    """Options of datasets that draw a split by ratios; see `protocol.draw_by_ratio`."""

    query_ratio: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the images to use as queries, per class if each image has one class."""
    train_ratio: float = Field(default=1.0, gt=0, le=1)
    """Fraction of the database to use as training images."""


class ListOptions(FileOptions):
    """Options of datasets that can be split by list files."""

    lists: Annotated[Path | None, BeforeValidator(_not_empty)] = None
    """Folder of the lists for the protocol `lists`; None: the dataset's own folder."""
    label_format: LabelFormat = "auto"
    """Format of the labels in lists: `multihot` (0 or 1 per class), `counts` (positive means yes), `id` (one
    class id) or `ids` (any number of class ids); `auto`: `id` if lines have one value, `ids` in a file
    `…_label.txt` whose lines differ in length, else `multihot`."""
    classes: int | None = Field(default=None, gt=0, le=1_000_000)
    """Number of classes in the lists, if neither the lines nor a file `classes.txt` determine it."""
    columns: str | None = None
    """Name of the order of the label columns in the lists; see the end of `hashbench data info`."""
    train: int | None = Field(default=None, gt=0)
    """Number of training images to draw from the database, if the lists have none."""
    query: int | None = Field(default=None, gt=0)
    """Number of queries to draw, if there is only a list of all images; the others are the database."""


SPLIT_OPTIONS = frozenset(ListOptions.model_fields) - {"exif", "truncated", "packed"} | {"name"}
"""Options that only affect a run through its split, so that runs with equal fingerprints are the same; also
`name`, the name of a collection of a user, since the same images under another name are the same."""
