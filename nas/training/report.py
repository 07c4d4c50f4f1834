"""What a worker tells at a rung of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Metric = Literal["accuracy", "balanced-accuracy"]
"""What nets are measured by: the share of images that are right, or its mean over classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RungReport:
    """What a worker tells at a rung of one training.

    ``rung`` counts from 0; ``epochs`` is how many epochs (a fraction, too) were
    trained by then; ``val_accuracy`` is 0 to 1 and ``val_loss`` the mean cross
    entropy on the validation split, both by the metric of the training: with
    "balanced-accuracy" they are means over the classes of each class's own mean.
    ``train_loss`` is the mean cross entropy in the last third of the steps since the
    last report; ``seconds`` is the time since the training began.
    """

    rung: int
    epochs: float
    val_accuracy: float
    train_loss: float
    seconds: float
    val_loss: float | None = None
    """None in records of studies that did not measure it."""
