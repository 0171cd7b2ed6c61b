"""The protocol for which the training length of a recipe was published."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class PublishedProtocol(BaseModel):
    """The protocol for which the training length was published, with both lengths.

    Attributes:
        name: Name of the protocol.
        images: Number of its training images.
        batches: Published number of batches in an epoch.
        steps: Published number of batches in the whole training.
        own_batches: Number of batches in an epoch of the run.
        own_steps: Number of batches in the whole training of the run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    images: int
    batches: int
    steps: int
    own_batches: int
    own_steps: int

    def difference(self, method: str, dataset: str, protocol: str) -> str | None:
        """Describe how the training length of a run differs from the published one.

        Returns:
            One sentence; None if the run uses the published protocol, or has the published length.
        """
        if protocol == self.name or (self.batches, self.steps) == (self.own_batches, self.own_steps):
            return None
        return (
            f"{method}'s training length was published for {dataset}@{self.name} ({self.images:,} images, "
            f"{self.batches:,} batches an epoch, {self.steps:,} steps); {dataset}@{protocol} has "
            f"{self.own_batches:,} batches an epoch and {self.own_steps:,} steps"
        )
