"""The datasets that ship with hashbench; each module is a plugin."""

DATASETS = {
    "digits": "hashbench_datasets.digits:Digits",
    "fashionmnist": "hashbench_datasets.fashionmnist:FashionMNIST",
    "mnist": "hashbench_datasets.mnist:MNIST",
    "cifar10": "hashbench_datasets.cifar10:CIFAR10",
    "nuswide": "hashbench_datasets.nuswide:NUSWide",
    "coco": "hashbench_datasets.coco:COCO",
    "flickr25k": "hashbench_datasets.flickr25k:Flickr25k",
    "imagenet100": "hashbench_datasets.imagenet100:ImageNet100",
    "folder": "hashbench_datasets.folder:Folder",
    **{
        f"torchvision:{name}": f"hashbench_datasets.torchvision_sets:{name}"
        for name in (
            *("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST", "STL10", "SVHN", "Food101"),
            *("Flowers102", "OxfordIIITPet", "Caltech101", "Caltech256", "EuroSAT", "FGVCAircraft", "DTD"),
            "VOCDetection",
        )
    },
}
