"""The datasets that come with hashbench; each module is one plugin."""

DATASETS = {
    "digits": "hashbench_datasets.digits:Digits",
    "fashionmnist": "hashbench_datasets.fashionmnist:FashionMNIST",
    "nuswide": "hashbench_datasets.nuswide:NUSWide",
}
