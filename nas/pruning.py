"""The size-aware, asynchronous pruning rule: pure arithmetic.

The front is accuracy against size, and a candidate's size is known before it trains. So
only candidates of at most its size can ever dominate it; those alone are its rivals.
A small net is never pruned for being less accurate than a big one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nas.pareto import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningRule:
    """Prune when ``rivals`` candidates of at most its size are clearly better.

    Clearly better is more than ``noise`` standard errors of the difference of two
    accuracies measured on the validation set. Before ``min_peers`` candidates have
    reported at the rung nothing is pruned there.
    """

    rivals: int = 1
    noise: float = 0.5
    min_peers: int = 5


def accuracy_noise(val_accuracy: float, val_size: int) -> float:
    """Return the standard error of the difference of two equal accuracies.

    Binomial, on val_size independent images each; the accuracy is 0 to 1.
    """
    # An accuracy of exactly 0 or 1 has no binomial spread; half an image has.
    floor = 0.5 / val_size
    share = min(max(val_accuracy, floor), 1 - floor)
    return math.sqrt(2 * share * (1 - share) / val_size)


def dominating_rivals(
    point: Point, peers: Sequence[Point], *, rule: PruningRule, val_size: int
) -> int:
    """Return how many peers are at most as large and clearly more accurate."""
    num_params, val_accuracy = point
    margin = rule.noise * accuracy_noise(val_accuracy, val_size)
    return sum(
        size <= num_params and accuracy > val_accuracy + margin
        for size, accuracy in peers
    )


def should_prune(
    point: Point, peers: Sequence[Point], *, rule: PruningRule, val_size: int
) -> bool:
    """Return whether a candidate at this (num_params, val_accuracy) is to stop.

    ``peers`` are the points of all other candidates at the same rung, whatever has
    become of them since.
    """
    if len(peers) < rule.min_peers:
        return False
    rivals = dominating_rivals(point, peers, rule=rule, val_size=val_size)
    return rivals >= rule.rivals
