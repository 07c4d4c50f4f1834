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


class Standing(NamedTuple):
    """Where a candidate stands at a rung; accuracy is 0 to 1, loss a cross entropy."""

    num_params: float
    val_accuracy: float
    train_loss: float


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
    standing: Standing, peers: Sequence[Standing], *, rule: PruningRule, val_size: int
) -> int:
    """Return how many peers are at most as large and clearly better."""
    bar = (1 - rule.lead) * standing.train_loss
    margin = rule.noise * accuracy_noise(standing.val_accuracy, val_size)
    return sum(
        peer.num_params <= standing.num_params
        and peer.val_accuracy > standing.val_accuracy + margin
        and peer.train_loss < bar
        for peer in peers
    )


def should_prune(
    standing: Standing, peers: Sequence[Standing], *, rule: PruningRule, val_size: int
) -> bool:
    """Return whether a candidate that stands like this is to stop.

    ``peers`` are the standings of all other candidates at the same rung, whatever has
    become of them since.
    """
    if len(peers) < rule.min_peers:
        return False
    return count_rivals(standing, peers, rule=rule, val_size=val_size) >= rule.rivals
