"""Classification datasets of torchvision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from numpy.typing import NDArray

from hashbench_datasets.torchvision_sets.base import InFiles, InMemory

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)

# Arguments of torchvision's classes for the images that are not test images, and for these.
BY_FLAG = [{"train": True}], [{"train": False}]
TRAIN_TEST = [{"split": "train"}], [{"split": "test"}]
TRAINVAL_TEST = [{"split": "trainval"}], [{"split": "test"}]
TRAIN_VAL_TEST = [{"split": "train"}, {"split": "val"}], [{"split": "test"}]
VOC_2007: Any = [{"year": "2007", "image_set": "trainval"}], [{"year": "2007", "image_set": "test"}]
UNSPLIT: Any = [{}], []


class CIFAR10(
    InMemory,
    parts=BY_FLAG,
    counts=(50_000, 10_000),
    folder="cifar-10-batches-py",
    licence="none stated; cite the technical report (Krizhevsky 2009)",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    size="163 MB",
    notes=("The dataset `cifar10` has the protocols of hashing papers.",),
):
    """CIFAR-10: 60,000 colour images of 10 classes, 32×32 pixels."""


class CIFAR100(
    InMemory,
    parts=BY_FLAG,
    counts=(50_000, 10_000),
    folder="cifar-100-python",
    licence="none stated; cite the technical report (Krizhevsky 2009)",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    size="161 MB",
):
    """CIFAR-100: 60,000 colour images of 100 classes, 32×32 pixels."""


class MNIST(
    InMemory,
    parts=BY_FLAG,
    counts=(60_000, 10_000),
    folder="MNIST/raw",
    licence="none stated; cite LeCun et al. 1998",
    source="http://yann.lecun.com/exdb/mnist/",
    size="12 MB",
):
    """MNIST: 70,000 grayscale images of handwritten digits, 28×28 pixels."""


class FashionMNIST(
    InMemory,
    parts=BY_FLAG,
    counts=(60_000, 10_000),
    folder="FashionMNIST/raw",
    licence="MIT",
    source="https://github.com/zalandoresearch/fashion-mnist",
    size="30 MB",
):
    """Fashion-MNIST: 70,000 grayscale images of 10 kinds of clothing, 28×28 pixels."""


class KMNIST(
    InMemory,
    parts=BY_FLAG,
    counts=(60_000, 10_000),
    folder="KMNIST/raw",
    licence="CC BY-SA 4.0",
    source="https://github.com/rois-codh/kmnist",
    size="21 MB",
):
    """Kuzushiji-MNIST: 70,000 grayscale images of 10 cursive Japanese characters, 28×28 pixels."""


class STL10(
    InMemory,
    parts=TRAIN_TEST,
    counts=(5_000, 8_000),
    folder="stl10_binary",
    licence="none stated; the images are from ImageNet; cite Coates et al. 2011",
    source="https://cs.stanford.edu/~acoates/stl10/",
    size="2.6 GB",
    notes=("The 100,000 unlabelled images of STL10 are not used.",),
):
    """STL-10: 13,000 labelled colour images of 10 classes, 96×96 pixels."""


class SVHN(
    InMemory,
    parts=TRAIN_TEST,
    counts=(73_257, 26_032),
    folder="train_32x32.mat",
    licence="for non-commercial use only",
    source="http://ufldl.stanford.edu/housenumbers/",
    size="246 MB",
):
    """SVHN: 99,289 colour images of house number digits, 32×32 pixels."""


class Food101(
    InFiles,
    parts=TRAIN_TEST,
    counts=(75_750, 25_250),
    folder="food-101",
    licence="images belong to the users of Foodspotting; for scientific fair use",
    source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    size="5.0 GB",
):
    """Food-101: 101,000 photographs of 101 dishes."""


class Flowers102(
    InFiles,
    parts=TRAIN_VAL_TEST,
    counts=(2_040, 6_149),
    folder="flowers-102",
    licence="none stated; cite Nilsback and Zisserman 2008",
    source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    size="345 MB",
):
    """Oxford 102 Flower: 8,189 photographs of 102 species."""


class OxfordIIITPet(
    InFiles,
    parts=TRAINVAL_TEST,
    counts=(3_680, 3_669),
    folder="oxford-iiit-pet",
    licence="CC BY-SA 4.0; images belong to their owners",
    source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    size="811 MB",
):
    """Oxford-IIIT Pet: 7,349 photographs of 37 breeds of cats and dogs."""

    def _files(self, part: Any) -> Iterable[tuple[Any, Any]]:
        return zip(part._images, part._labels, strict=True)


class Caltech101(
    InFiles,
    parts=UNSPLIT,
    counts=(8_677, 0),
    folder="caltech101/101_ObjectCategories",
    licence="CC BY 4.0",
    source="https://data.caltech.edu/records/mzrjq-6wc02",
    size="137 MB",
    notes=("Caltech101 is without the images of its background class, as in torchvision.",),
):
    """Caltech 101: 8,677 images of 101 kinds of objects."""

    def _files(self, part: Any) -> Iterable[tuple[Any, Any]]:
        folder = Path(part.root) / "101_ObjectCategories"
        for label, number in zip(part.y, part.index, strict=True):
            yield folder / part.categories[label] / f"image_{number:04d}.jpg", label


class Caltech256(
    InFiles,
    parts=UNSPLIT,
    counts=(30_607, 0),
    folder="caltech256/256_ObjectCategories",
    licence="CC BY 4.0",
    source="https://data.caltech.edu/records/nyy15-4j048",
    size="1.2 GB",
    notes=("In Caltech256, 257.clutter is a class like the others, as in torchvision.",),
):
    """Caltech 256: 30,607 images of 256 kinds of objects, and of clutter."""

    def _files(self, part: Any) -> Iterable[tuple[Any, Any]]:
        folder = Path(part.root) / "256_ObjectCategories"
        for label, number in zip(part.y, part.index, strict=True):
            yield folder / part.categories[label] / f"{label + 1:03d}_{number:04d}.jpg", label


class EuroSAT(
    InFiles,
    parts=UNSPLIT,
    counts=(27_000, 0),
    folder="eurosat/2750",
    licence="MIT",
    source="https://github.com/phelber/eurosat",
    size="94 MB",
):
    """EuroSAT: 27,000 satellite images of 10 kinds of land, 64×64 pixels."""

    def _files(self, part: Any) -> Iterable[tuple[Any, Any]]:
        return list(part.samples)


class FGVCAircraft(
    InFiles,
    parts=TRAINVAL_TEST,
    counts=(6_667, 3_333),
    folder="fgvc-aircraft-2013b",
    licence="for non-commercial research only",
    source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    size="2.8 GB",
):
    """FGVC Aircraft: 10,000 photographs of 100 variants of aircraft."""


class DTD(
    InFiles,
    parts=TRAIN_VAL_TEST,
    counts=(3_760, 1_880),
    folder="dtd/dtd",
    licence="for research purposes",
    source="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    size="626 MB",
    notes=("The official split of DTD is the first of its ten.",),
):
    """Describable Textures: 5,640 photographs of 47 textures."""


class VOCDetection(
    InFiles,
    parts=VOC_2007,
    counts=(5_011, 4_952),
    folder="VOCdevkit/VOC2007",
    licence="images belong to the Flickr users, under its terms of use",
    source="https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC/voc2007/",
    size="911 MB",
    notes=(
        "VOCDetection is VOC 2007, the last year with public labels of the test images; an image has the "
        "classes of all objects in its annotation, also of those marked as difficult.",
    ),
):
    """PASCAL VOC 2007: 9,963 photographs with any of 20 kinds of objects."""

    def _files(self, part: Any) -> Iterable[tuple[Any, Any]]:
        for image, annotation in zip(part.images, part.annotations, strict=True):
            names = {node.text for node in ElementTree.parse(annotation).iterfind("object/name")}
            if unknown := names - set(VOC_CLASSES):
                raise ValueError(f"{annotation} has the unknown class {min(map(str, unknown))}")
            yield image, [name in names for name in VOC_CLASSES]

    def _class_names(self, part: Any, labels: NDArray[Any]) -> Sequence[str]:
        return VOC_CLASSES
