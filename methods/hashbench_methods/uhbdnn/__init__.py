"""UH-BDNN: a binary deep neural network with codes in a hidden layer, learned in turn with it (ECCV 2016)."""

from hashbench_methods.uhbdnn.method import UHBDNN, uhbdnn_loss, update_targets

__all__ = ["UHBDNN", "uhbdnn_loss", "update_targets"]
