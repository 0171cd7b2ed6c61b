"""Selection of the epoch whose weights are the result: the last one, or the one with the best mAP."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from hashbench.config import RunConfig
from hashbench.method.base import HashMethod
from hashbench.results.record import SelectedEpoch

Score = Callable[[HashMethod], float]
BACKBONE = "backbone."


def trained_weights(method: HashMethod) -> dict[str, Tensor]:
    """Return copies of the weights that training changes, on the CPU, without those of a frozen backbone."""
    return {
        name: tensor.detach().to("cpu", copy=True)
        for name, tensor in method.state_dict().items()
        if not (method.backbone.frozen and name.startswith(BACKBONE))
    }


def load_trained_weights(method: HashMethod, weights: dict[str, Tensor]) -> None:
    """Load weights from `trained_weights` into a method."""
    method.load_state_dict({**method.state_dict(), **weights})


class BestCheckpoint:
    """Validation during training, which keeps the weights with the best mAP.

    Attributes:
        metric: Name of the metric, as in "validation mAP@1000".
    """

    def __init__(self, config: RunConfig, score: Score | None) -> None:
        """Store the settings."""
        self._config, self._epochs, self._score = config.selection, config.training.epochs, score
        part = "query" if config.selection.name == "best-on-query" else "validation"
        self.metric = f"{part} mAP@{config.evaluation.k[0]}"
        self._best = -math.inf
        self._epoch = self._num_validations = self._since = 0
        self._weights: dict[str, Tensor] = {}

    def validate(self, method: HashMethod, epoch: int) -> float | None:
        """Return the mAP after an epoch, counted from 1, or None if no validation is due."""
        if self._score is None or (epoch % self._config.every and epoch != self._epochs):
            return None
        value = self._score(method)
        self._num_validations += 1
        self._since += 1
        if value > self._best:
            self._best, self._epoch, self._since = value, epoch, 0
            self._weights = trained_weights(method)
        return value

    @property
    def exhausted(self) -> bool:
        """True if as many validations as `selection.patience` have not improved the mAP."""
        return self._config.patience is not None and self._since >= self._config.patience

    def finish(self, method: HashMethod) -> SelectedEpoch | None:
        """Load the best weights into a method; return None if there was no validation."""
        if not self._num_validations:
            return None
        load_trained_weights(method, self._weights)
        name = self._config.name
        return SelectedEpoch(
            name=name, metric=self.metric, value=self._best, epoch=self._epoch, looks=self._num_validations
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint."""
        return {
            name: vars(self)[name] for name in ("_best", "_epoch", "_num_validations", "_since", "_weights")
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        vars(self).update(state)
