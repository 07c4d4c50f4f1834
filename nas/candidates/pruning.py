"""The size-aware, asynchronous pruning rule: pure arithmetic.

The front is accuracy against size, and a candidate's size is known before it trains. So
only candidates of at most its size can ever dominate it; those alone are its rivals.
A small net is never pruned for being less accurate than a big one.

A rival has to be ahead on two counts, validation accuracy and training loss. In the
midst of a training, at high learning rates, the validation accuracy of a network with
batch norm jumps by tens of points from one moment to the next. The training loss, a
mean over many batches, does not; but it knows nothing of overfitting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class RungResult(NamedTuple):
    """A candidate's result at a rung; accuracy is 0 to 1, loss a cross entropy."""

    num_params: float
    val_accuracy: float
    train_loss: float


Peers = Sequence[RungResult] | npt.NDArray[np.float64]
"""The results of others at the same rung, one a row where they are an array."""


class RungResults:
    """The results at one rung, in one array: thousands are compared at once."""

    def __init__(self) -> None:
        """Start empty."""
        self._rows = np.empty((64, 3))
        self._trials: list[int] = []  # whose result each row is
        self._places: dict[int, int] = {}

    def put(self, trial: int, result: RungResult) -> None:
        """Set the result of a trial."""
        place = self._places.setdefault(trial, len(self._trials))
        if place == len(self._trials):
            self._trials.append(trial)
            if place == len(self._rows):
                self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[place] = result

    def drop(self, trial: int) -> None:
        """Forget a trial, where it was noted; the last one takes its row."""
        place = self._places.pop(trial, None)
        if place is None:
            return
        last = self._trials.pop()
        if last != trial:
            self._rows[place] = self._rows[len(self._trials)]
            self._trials[place], self._places[last] = last, place

    def peers(self) -> npt.NDArray[np.float64]:
        """Return all results ``[trials, 3]``, unordered; valid until the next change."""
        return self._rows[: len(self._trials)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningRule:
    """Prune when ``rivals`` candidates of at most its size are clearly better.

    Clearly better is a training loss that is lower by more than the share ``lead``, and
    an accuracy that is higher by more than ``noise`` standard errors of the difference
    of two accuracies measured on the validation set. Before ``min_peers`` candidates have
    reported at the rung nothing is pruned there.
    """

    rivals: int = 1
    lead: float = 0.3
    noise: float = 1.0
    min_peers: int = 5


def accuracy_noise(val_accuracy: float, val_size: int) -> float:
    """Return the standard error of the difference of two equal accuracies.

    Binomial, on val_size independent images each; the accuracy is 0 to 1.
    """
    # An accuracy of exactly 0 or 1 has no binomial spread; half an image has.
    floor = 0.5 / val_size
    share = min(max(val_accuracy, floor), 1 - floor)
    return math.sqrt(2 * share * (1 - share) / val_size)


def count_rivals(
    result: RungResult, peers: Peers, *, rule: PruningRule, val_size: int
) -> int:
    """Return how many peers are at most as large and clearly better."""
    sizes, accuracies, losses = np.asarray(peers, dtype=np.float64).reshape(-1, 3).T
    bar = (1 - rule.lead) * result.train_loss
    margin = rule.noise * accuracy_noise(result.val_accuracy, val_size)
    rivals = (
        (sizes <= result.num_params)
        & (accuracies > result.val_accuracy + margin)
        & (losses < bar)
    )
    return int(np.count_nonzero(rivals))


def should_prune(
    result: RungResult, peers: Peers, *, rule: PruningRule, val_size: int
) -> bool:
    """Return whether a candidate with this result should stop.

    ``peers`` are the results of all other candidates at the same rung, whatever has
    become of them since.
    """
    if len(peers) < rule.min_peers:
        return False
    return count_rivals(result, peers, rule=rule, val_size=val_size) >= rule.rivals
