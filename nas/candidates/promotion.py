"""Which candidate deserves a longer training: pure arithmetic.

Every candidate is screened by one short training. The best of each range of sizes,
judged by their residuals, are promoted to the next fidelity and at last to a full
training; where the first two of a range are close, both get a second seed. The ranges
halve the size, from the largest candidate downwards; the larger ones get more, and what
is smaller than the last of them gets none.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nas.candidates.ranking import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionRule:
    """The number of promotions for ``trials`` screened candidates.

    ``middle``, ``full`` and ``seeds`` are shares of the trials that are trained at the
    fidelities between the first and the last one, at the last one, and once more at the
    last one with another seed; ``least`` is the fewest of each. ``weights`` share them
    out among the ranges of sizes, the first being that of the largest candidates. Two
    candidates are close when their scores differ by less than ``close``. Each promotion
    of a net of one structure and range makes the next one wait behind others that are
    worse by less than ``crowding``. Within a range the larger one is expected to be
    better: so much of that counts as ``size`` says, from 0, which ranks by what a net is
    worth for its size, to 1, which ranks by the expected accuracy.
    """

    middle: float = 0.14
    full: float = 0.08
    seeds: float = 0.01
    least: int = 4
    weights: tuple[float, ...] = (5.0, 4.0, 4.0, 4.0, 3.0)
    close: float = 0.15
    crowding: float = 0.05
    size: float = 0.25


class Promotion(NamedTuple):
    """A training that is due: candidate, epochs and the number of the seed."""

    trial: int
    epochs: int
    seed: int


def next_promotion(
    evidence: Sequence[Evidence],
    scores: Sequence[float],
    started: Mapping[int, Collection[tuple[int, int]]],
    *,
    rule: PromotionRule,
    fidelities: Sequence[int],
    trials: int,
    screened: int,
    screening: bool,
    always: Collection[int] = (),
) -> Promotion | None:
    """Return the promotion that is due, if any.

    ``scores`` are the merits of the ``evidence``, the lower the better, nan where a
    candidate is not to be promoted; ``started`` has for each trial the (epochs, seed
    number) of all its promotions, running ones too. ``screened`` of ``trials`` candidates
    have been screened, and further ones will be while ``screening``: early on few
    promotions are due, since better ones are to come. The trials in ``always`` are fully
    trained whatever they are worth, before others, and besides the promotions that the
    rule gives.
    """
    if len(fidelities) < 2:
        return None
    for one in evidence:
        begun = started.get(one.trial, ())
        if one.trial in always and (fidelities[-1], 0) not in begun:
            return Promotion(one.trial, fidelities[-1], 0)
    done = min(1.0, screened / trials) if screening else 1.0
    counts = Counter(
        epochs
        for trial, some in started.items()
        for epochs, seed in some
        if seed == 0 and trial not in always
    )
    others = [
        (one, score)
        for one, score in zip(evidence, scores, strict=True)
        if one.trial not in always
    ]
    for level in range(len(fidelities) - 1, 0, -1):
        epochs, below = fidelities[level], fidelities[level - 1]
        last = level == len(fidelities) - 1
        share, power = (rule.full, 3.0) if last else (rule.middle, 1.5)
        in_all = max(rule.least, share * trials)
        if counts[epochs] + 1 > in_all * math.pow(done, power) + 1e-9:
            continue
        chosen = _best_of_the_neediest(
            others,
            started,
            rule,
            (epochs, below),
            int(in_all),
            screening=screening,
        )
        if chosen is not None:
            return Promotion(chosen, epochs, 0)
    if screening:
        return None
    return _second_seed(evidence, scores, started, rule, fidelities[-1], trials)


def planned_epochs(
    rule: PromotionRule, fidelities: Sequence[int], trials: int, always: int
) -> float:
    """Return the epochs of all trainings of so many trials, were none pruned.

    Second seeds are counted as if the best of each range were close; so many networks
    are ``always`` fully trained.
    """
    epochs = float(fidelities[0] * trials)
    for level, length in enumerate(fidelities[1:], start=1):
        share = rule.full if level == len(fidelities) - 1 else rule.middle
        epochs += length * min(trials, int(max(rule.least, share * trials)))
    if len(fidelities) > 1:
        epochs += fidelities[-1] * (_second_seeds(rule, trials) + always)
    return epochs


def size_range(num_params: int, largest: int) -> int:
    """Return the range of sizes: 0 from half the largest, 1 from a quarter, ..."""
    return int(math.log2(max(1.0, largest / max(1, num_params))))


def _best_of_the_neediest(
    scored: Sequence[tuple[Evidence, float]],
    started: Mapping[int, Collection[tuple[int, int]]],
    rule: PromotionRule,
    levels: tuple[int, int],
    in_all: int,
    *,
    screening: bool,
) -> int | None:
    """Return the best candidate of the range with the fewest promotions for its weight.

    ``levels`` are the epochs to promote to and those that it was trained for. While
    ``screening``, no range gets more than its share of the promotions, which are so many
    ``in_all``, and no other of its range that has not been trained so long may look
    clearly better.
    """
    epochs, below = levels
    ranges = len(rule.weights)
    shares = _shared_out(rule.weights, in_all)
    spent = [0] * ranges
    best: dict[int, tuple[float, int]] = {}
    waiting: dict[int, float] = {}
    largest = max((one.num_params for one, _ in scored), default=1)
    promoted = Counter(
        (size_range(one.num_params, largest), one.family)
        for one, _ in scored
        if (epochs, 0) in started.get(one.trial, ())
    )
    for one, merit in scored:
        place = size_range(one.num_params, largest)
        if place >= ranges:  # too small to be of use
            continue
        score = merit + rule.crowding * promoted[place, one.family]
        if (epochs, 0) in started.get(one.trial, ()):
            spent[place] += 1
        elif math.isnan(score):
            continue
        elif one.results.get(below):
            best[place] = min(best.get(place, (math.inf, -1)), (score, one.trial))
        else:
            waiting[place] = min(waiting.get(place, math.inf), score)
    if screening:
        # A candidate that looks better must be promoted first.
        best = {
            place: found
            for place, found in best.items()
            if found[0] < waiting.get(place, math.inf) + rule.close
        }
    open_to = [p for p in best if spent[p] < shares[p]]
    if not screening:
        open_to = open_to or [*best]
    if not open_to:
        return None
    return best[_neediest(rule.weights, spent, open_to)][1]


@functools.cache
def _shared_out(weights: tuple[float, ...], in_all: int) -> tuple[int, ...]:
    """Return how many of the promotions each range gets, so that none takes another's."""
    shares = [0] * len(weights)
    for _ in range(in_all):
        shares[_neediest(weights, shares, range(len(weights)))] += 1
    return tuple(shares)


def _neediest(
    weights: Sequence[float], spent: Sequence[int], places: Collection[int]
) -> int:
    """Return whose turn it is, by D'Hondt's way to share out seats among parties."""
    return max(places, key=lambda p: (weights[p] / (spent[p] + 1), -p))


def _second_seed(
    evidence: Sequence[Evidence],
    scores: Sequence[float],
    started: Mapping[int, Collection[tuple[int, int]]],
    rule: PromotionRule,
    epochs: int,
    trials: int,
) -> Promotion | None:
    """Return a second training for one of the two best of a range, if they are close."""
    used = sum(seed > 0 for some in started.values() for _, seed in some)
    if used >= _second_seeds(rule, trials):
        return None
    largest = max((one.num_params for one in evidence), default=1)
    for place in range(len(rule.weights)):
        ranked = sorted(
            (score, one.trial)
            for one, score in zip(evidence, scores, strict=True)
            if one.results.get(epochs)
            and not math.isnan(score)
            and size_range(one.num_params, largest) == place
        )[:2]
        if len(ranked) == 2 and ranked[1][0] - ranked[0][0] < rule.close:
            for _, trial in ranked:
                if (epochs, 1) not in started.get(trial, ()):
                    return Promotion(trial, epochs, 1)
    return None


def _second_seeds(rule: PromotionRule, trials: int) -> int:
    """Return how many second seeds there may be: those of pairs."""
    return max(rule.least // 2, 2 * round(rule.seeds * trials / 2))
