"""ImageNet-100: the 100 synsets of ILSVRC 2012 that hashing papers use."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from hashbench.data.class_folders import FOLDERS as FOLDERS_PROTOCOL
from hashbench.data.class_folders import PROTOCOL as FOLDERS_RULE
from hashbench.data.class_folders import ignored_files, read_class_folders, read_split_folders, split_folders
from hashbench.data.dataset import About, ColumnOrders, Dataset, DatasetPlugin
from hashbench.data.image_index import find_folder, missing_data
from hashbench.data.list_splits import LISTS, PROTOCOL, dataset_from_lists
from hashbench.data.options import ListOptions
from hashbench.data.protocol import Protocol, draw_per_class
from hashbench.errors import HashbenchError

FOLDERS = ("imagenet100", "imagenet", "")  # below the root, in order of preference

# The synsets of HashNet's lists, sorted; the class id is the index. Other subsets are also called
# ImageNet-100.
SYNSETS = (
    *("n01514668", "n01537544", "n01560419", "n01629819", "n01632458", "n01664065", "n01685808", "n01687978"),
    *("n01698640", "n01729322", "n01774750", "n01797886", "n01819313", "n01828970", "n01944390", "n01986214"),
    *("n02017213", "n02018207", "n02077923", "n02088466", "n02093256", "n02094114", "n02096177", "n02096294"),
    *("n02097209", "n02098105", "n02102177", "n02105162", "n02106550", "n02111129", "n02111277", "n02113023"),
    *("n02128385", "n02256656", "n02281787", "n02346627", "n02391049", "n02408429", "n02415577", "n02454379"),
    *("n02488291", "n02526121", "n02655020", "n02834397", "n02840245", "n02841315", "n02865351", "n02871525"),
    *("n02895154", "n02939185", "n02948072", "n02965783", "n02992211", "n03018349", "n03045698", "n03047690"),
    *("n03196217", "n03223299", "n03272562", "n03291819", "n03345487", "n03445924", "n03483316", "n03584829"),
    *("n03680355", "n03690938", "n03733131", "n03743016", "n03803284", "n03814639", "n03838899", "n03857828"),
    *("n03891332", "n03895866", "n03899768", "n03902125", "n03944341", "n04026417", "n04153751", "n04201297"),
    *("n04238763", "n04254120", "n04344873", "n04350905", "n04366367", "n04404412", "n04417672", "n04435653"),
    *("n04486054", "n04548362", "n04560804", "n04579432", "n04596742", "n07583066", "n07584110", "n07753113"),
    *("n07754684", "n07836838", "n12057211", "n13044778"),
)
TRAIN_PER_CLASS = {"13k": 130, "10k": 100}


class ImageNet100(DatasetPlugin):
    """ImageNet-100 from one folder per synset, or from list files."""

    Options = ListOptions
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "13k": Protocol(
            "the official validation images of the 100 synsets are queries, the official training images the "
            "database; 130 of these per class, drawn by the seed, are the training images (the sizes of "
            "HashNet's lists)",
            5_000,
            13_000,
            128_503,
        ),
        "10k": Protocol(
            "as 13k with 100 training images per class (the sizes in HashNet's paper)", 5_000, 10_000, 128_503
        ),
        FOLDERS_PROTOCOL: FOLDERS_RULE,
        LISTS: PROTOCOL,
    }
    about: ClassVar[About] = About(
        licence="ImageNet's terms of access: non-commercial research, no redistribution",
        source="https://image-net.org/challenges/LSVRC/2012/",
        size="17 GB for the 100 synsets, 145 GB for all",
        layout=(
            "imagenet100/, imagenet/ or the root itself",
            "├── train/n01514668/n01514668_13547.JPEG, …",
            "├── val/n01514668/ILSVRC2012_val_00000007.JPEG, …",
            "├── for the protocol folders: train/, query/, database/, each with one folder per synset; or",
            "│   training; queries, test, testing, val, valid, validation; db, gallery; in any letter case",
            "└── train.txt, test.txt, database.txt for the protocol lists; each line a path and 100 labels,",
            "    or a path and a class id",
        ),
        notes=(
            "The 100 synsets are those of HashNet's lists; other subsets with this name have other synsets.",
            "HashNet's lists (13,000 training images) differ from its paper (10,000).",
            "About 20 images are CMYK and one is a PNG; all of them are decoded.",
        ),
        by_hand=(
            "get it from https://image-net.org, after you agree to its terms:\n"
            "  ILSVRC2012_img_train.tar (MD5 1d675b47d978889d74fa0da5fadfb00e)\n"
            "  ILSVRC2012_img_val.tar (MD5 29b22e2961454d5413ddabcf34fc5622)\n"
            "unpack them into one folder per synset; valprep.sh of\n"
            "https://github.com/soumith/imagenetloader.torch sorts the validation images"
        ),
    )
    column_orders: ClassVar[ColumnOrders] = {100: {"synsets": SYNSETS}}
    options: ListOptions

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the folders or lists; see `DatasetPlugin.load`."""
        folders = [root / name for name in FOLDERS]
        if protocol == LISTS:
            return dataset_from_lists(
                "imagenet100", self.options, folders, self.column_orders, image_id=lambda path, _: _name(path)
            )
        if protocol == FOLDERS_PROTOCOL:
            base = next((folder for folder in folders if "train" in split_folders(folder)), None)
        else:
            base = find_folder(folders, _has_synsets)
        if base is None:
            raise missing_data("imagenet100", self, root, f"train/{SYNSETS[0]}/", protocol)

        if protocol == FOLDERS_PROTOCOL:
            parts, _, warnings = read_split_folders(base, SYNSETS, self.options, _name)
        else:
            used = [base / "train", base / "val"]
            warnings = ignored_files([folder / synset for folder in used for synset in SYNSETS], used)
            query, database = (
                read_class_folders(base / part, SYNSETS, self.options, _name) for part in ("val", "train")
            )
            drawn, _ = draw_per_class(database.labels, [TRAIN_PER_CLASS[protocol]], self.options.seed)
            parts = {"train": database.subset(drawn), "query": query, "database": database}
        for part in ("query", "database"):
            if absent := np.setdiff1d(np.arange(len(SYNSETS)), parts[part].labels).tolist():
                raise HashbenchError(
                    f"imagenet100: {len(absent)} of 100 synsets have no {part} images in {base}, such as "
                    f"{SYNSETS[absent[0]]}"
                )
        return Dataset.from_splits(
            "imagenet100", protocol, SYNSETS, **parts, options=self.options, warnings=warnings
        )


def _has_synsets(folder: Path) -> bool:
    return any((folder / "train" / synset).is_dir() for synset in SYNSETS)


def _name(path: str) -> str:
    """Return the id of an image: the name of its file, which is unique in ImageNet."""
    return posixpath.basename(path.replace(os.sep, "/"))
