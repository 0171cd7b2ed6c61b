"""MS-COCO: 122,218 images with objects of 80 classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hashbench.data.dataset import About, ColumnOrders, Dataset, DatasetPlugin
from hashbench.data.download import Archive
from hashbench.data.image_index import find_folder, locate_all, missing_data, up_to
from hashbench.data.list_files import ImageList, whole_number
from hashbench.data.list_splits import LISTS, PROTOCOL, dataset_from_lists
from hashbench.data.options import ListOptions
from hashbench.data.protocol import Protocol, draw
from hashbench.errors import LONGEST, HashbenchError, quoted
from hashbench.runtime.json_files import read_json

FOLDERS = ("coco", "COCO", "mscoco", "")  # below the root, in order of preference
SITE = "http://images.cocodataset.org"

# In the order of the category ids, which range from 1 to 90 with gaps.
CATEGORIES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
    *("surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    *("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
    *("chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock"),
    *("vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
CLASSES = tuple(sorted(CATEGORIES))  # the order in nearly all lists
ORDERS: ColumnOrders = {80: {"alphabetical": CLASSES, "official": CATEGORIES}}
QUERIES, TRAIN = 5_000, 10_000
MAX_BYTES = 1 << 30  # limit of an annotation file; the largest has 449 MB


class COCO(DatasetPlugin):
    """MS-COCO from the annotations of 2014 or 2017, which have the same images, or from list files."""

    Options = ListOptions
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "117k": Protocol(
            "5,000 queries and 10,000 training images, drawn by the seed from the images with any object; "
            "all but the queries are the database (the sizes in CIBHash's paper)",
            5_000,
            10_000,
            117_218,
        ),
        "107k": Protocol(
            "as 117k, but the training images are not in the database (the sizes of DeepHash's lists)",
            5_000,
            10_000,
            107_218,
        ),
        LISTS: PROTOCOL,
    }
    about: ClassVar[About] = About(
        licence="annotations CC BY 4.0; images keep their Flickr licences, most of them non-commercial",
        source="https://cocodataset.org",
        size="20 GB",
        layout=(
            "coco/, COCO/, mscoco/ or the root itself",
            "├── annotations/",
            "│   ├── instances_train2014.json, or …2017.json",
            "│   └── instances_val2014.json, or …2017.json",
            "├── train2014/COCO_train2014_000000566612.jpg, …; or train2017/000000566612.jpg, …",
            "├── val2014/, or val2017/",
            "└── train.txt, test.txt, database.txt for the protocol lists; each line a path and 80 labels",
        ),
        notes=(
            "HashNet's lists, which BiHalf also uses, have all 5,000 queries and no training images in the "
            "database; pass --data leaks=drop to remove the queries.",
            "The lists of HashNet and of DeepHash share 194 of 5,000 queries.",
            "Label columns are in alphabetical order, as in nearly all lists; pass --data columns=official "
            "if they are ordered by category id.",
        ),
    )
    downloads: ClassVar[Sequence[Archive]] = (
        Archive(
            f"{SITE}/annotations/annotations_trainval2014.zip",
            "0a379cfc70b0e71301e0f377548639bd",
            "coco/annotations_trainval2014.zip",
            "coco/annotations",
            "253 MB",
        ),
        Archive(
            f"{SITE}/zips/train2014.zip",
            "0da8c0bd3d6becc4dcb32757491aca88",
            "coco/train2014.zip",
            "coco/train2014",
            "13.5 GB",
        ),
        Archive(
            f"{SITE}/zips/val2014.zip",
            "a3d79f5ed8d289b7a7554ce06a5782b3",
            "coco/val2014.zip",
            "coco/val2014",
            "6.6 GB",
        ),
    )
    column_orders: ClassVar[ColumnOrders] = ORDERS
    options: ListOptions

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the annotations or lists and find the images; see `DatasetPlugin.load`."""
        folders = [root / name for name in FOLDERS]
        if protocol == LISTS:
            return dataset_from_lists(
                "coco", self.options, folders, self.column_orders, key=image_number, image_id=_image_id
            )
        folder = find_folder(folders, lambda folder: len(_annotation_files(folder)) == 2)
        if folder is None:
            if (folder := find_folder(folders, _annotation_files)) is not None:
                (file,) = _annotation_files(folder)
                raise HashbenchError(f"coco: {_other_part(file)} is missing; both parts are needed")
            raise missing_data("coco", self, root, "annotations/instances_train2014.json", protocol)
        everything, warnings = locate_all(
            read_annotations(_annotation_files(folder)),
            up_to(root, folder),
            self.options,
            key=image_number,
            image_id=_image_id,
        )
        train, query, rest = draw(len(everything.images), [TRAIN, QUERIES], self.options.seed)
        database = rest if protocol == "107k" else np.sort(np.concatenate([train, rest]))
        return Dataset.from_splits(
            "coco",
            protocol,
            CLASSES,
            train=everything.subset(train),
            query=everything.subset(query),
            database=everything.subset(database),
            options=self.options,
            warnings=warnings,
        )


def image_number(path: str) -> str:
    """Return the 12 digits that identify an image in 2014 and 2017: `val2014/COCO_val2014_000000000042.jpg`.

    Any other path, such as a mask or a label file, is returned unchanged.
    """
    found = re.fullmatch(r"(?:.*[/\\])?(?:COCO_(?:train|val)2014_)?(\d{12})\.jpe?g", path, re.IGNORECASE)
    return found[1] if found else path


def _image_id(path: str, _: str) -> str:
    return image_number(path)


def read_annotations(files: Sequence[Path]) -> ImageList:
    """Read annotation files.

    Args:
        files: `instances_*.json`.

    Returns:
        The images with any object, sorted by number, with labels in the order of `CLASSES`.

    Raises:
        HashbenchError: A file is damaged or has other categories.
    """
    names: dict[int, str] = {}
    classes: dict[int, set[str]] = {}
    annotated_in: dict[int, Path] = {}
    for file in files:
        content = _read_json(file)
        try:
            folder = file.stem.removeprefix("instances_")
            for image in content["images"]:
                number, name = _number(image["id"]), f"{folder}/{image['file_name']}"
                if number in names:
                    raise HashbenchError(
                        f"{file}: two images have the id {number}, {quoted(names[number])} and "
                        f"{quoted(name)}; get it again"
                    )
                names[number] = name
            categories = {_number(category["id"]): category["name"] for category in content["categories"]}
            if unknown := set(categories.values()) ^ set(CLASSES):
                raise HashbenchError(
                    f"{file} has other categories than COCO's 80, such as {quoted(min(unknown))}"
                )
            for annotation in content["annotations"]:
                number, category = _number(annotation["image_id"]), _number(annotation["category_id"])
                classes.setdefault(number, set()).add(categories[category])
                annotated_in.setdefault(number, file)
        except (KeyError, TypeError, ValueError) as error:
            raise HashbenchError(
                f"{file} is not an instances file of COCO ({repr(error)[: 2 * LONGEST]}); get it again"
            ) from error
    labelled = sorted(classes)
    for number in labelled:
        if number not in names:
            raise HashbenchError(
                f"{annotated_in[number]}: image {number} is annotated but not listed; get the file again"
            )
    column = {name: index for index, name in enumerate(CLASSES)}
    labels = np.zeros((len(labelled), len(CLASSES)), np.uint8)
    for row, number in enumerate(labelled):
        labels[row, [column[name] for name in classes[number]]] = 1
    paths = tuple(names[number] for number in labelled)
    return ImageList(files[0].parent, paths, labels, np.zeros(len(paths), np.int64))


def _number(value: Any) -> int:
    """Return an id as a number; some tools write ids as strings."""
    number = whole_number(value) if isinstance(value, str) else value
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    raise ValueError(f"the id {quoted(value)} is not an integer")


def _read_json(file: Path) -> Any:
    def without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
        entry.pop("segmentation", None)  # most of the file; it would take gigabytes of memory
        return entry

    try:
        return read_json(file, without_outlines, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise HashbenchError(f"{file} cannot be read ({error}); get it again") from error


def _annotation_files(folder: Path) -> list[Path]:
    """Return both annotation files of a year, else the only one; they may be in the folder `annotations`."""
    found: list[Path] = []
    for base in (folder / "annotations", folder):
        for year in ("2014", "2017"):
            files = [base / f"instances_{part}{year}.json" for part in ("train", "val")]
            found = max(found, [*filter(Path.is_file, files)], key=len)
    return found


def _other_part(file: Path) -> Path:
    """Return the annotation file of the other part of the same year."""
    part, other = ("train", "val") if "train" in file.name else ("val", "train")
    return file.with_name(file.name.replace(part, other))
