"""Ranks candidates of different sizes, trained for different times, on one scale.

The size of a net explains most of its loss, so what is ranked is the residual: how far
its loss (in logarithms) lies above or below the trend of all candidates over log size. A
short training of all candidates gives the trend; longer ones of the promoted few correct
their residuals, as far as they can be trusted.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.architecture import Architecture
from nas.architecture.kinds import parts_of
from nas.architecture.notation import kind_and_kernel
from nas.candidates.candidate import Candidate

Array = npt.NDArray[np.floating[Any]]

# What a longer training says counts so much against what the shorter ones said; with a
# second seed more.
_TRUST = 0.75
_TRUST_SEEDS = 0.9
# What a longer training adds depends on a network's traits (`Evidence.traits`): so much of the
# badness for each unit of a trait and of log(full epochs / epochs). Fits, each trait beside
# the others, gave for compute, depth and a spatial head 0.03, 0.05, -0.03 (84 networks trained
# for 2 and 15 epochs on MNIST of 14x14), 0.05, 0, -0.04 (81, Fashion-MNIST of 14x14); for
# compute and depth 0.02, 0.04 (196 and 105 of 7 searches on MNIST, 1 to 3 and 3 to 15 epochs).
_GAINS = np.array([0.03, 0.03, -0.02])
# They differ between data sets, so they are fitted in each study, around the above; the squares
# of so many units of a trait weigh as much as that.
_GAINS_KNOWN = 5.0
# The fit is robust: deviations count up to so many times their median.
_HUBER = 1.5
# A mean cross entropy above it, as of weights that run away, says no more than it does.
_WORST_LOSS = 1e3


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one candidate: the badness after each completed training.

    ``results`` has for each fidelity (epochs) one number a seed, see `badness`;
    ``family`` is the same for nets that differ in widths and details only, ``depth``
    counts the convolutions one after the other, ``spatial`` tells whether the head sees
    each place of the maps.
    """

    trial: int
    num_params: int
    macs: int
    results: Mapping[int, Sequence[float]]
    family: str = ""
    depth: int = 1
    spatial: bool = False

    def traits(self) -> Array:
        """Return what the gain of a longer training depends on, float [3]."""
        return _traits(self.macs, self.depth, spatial=self.spatial)


def badness(val_loss: float | None, val_accuracy: float, val_size: int) -> float:
    """Return the logarithm of the geometric mean of validation loss and error.

    The loss tells more of nets that are nearly equal, the error is what is wanted; each
    is noisy, and half an image's error stands for none at all. A loss that is no
    finite number counts as the worst: it must not spoil the trend of all others.
    """
    error = max(1 - val_accuracy, 0.5 / val_size)
    if val_loss is None:  # of a study that did not measure it
        return math.log(error)
    loss = min(val_loss, _WORST_LOSS) if math.isfinite(val_loss) else _WORST_LOSS
    return (math.log(max(loss, 1e-9)) + math.log(error)) / 2


def gain_of_longer_training(
    architecture: Architecture, macs: int, epochs: int, full_epochs: int
) -> float:
    """Return how much badness a net of these traits gains by a full training.

    Up to a constant that is the same for all nets.
    """
    spatial = has_spatial_head(architecture)
    traits = _traits(macs, depth_of(architecture), spatial=spatial)
    return float(_gain(traits, epochs, full_epochs))


def _traits(macs: int, depth: int, *, spatial: bool) -> Array:
    return np.array([math.log(max(macs, 1)), math.log(depth), float(spatial)])


def _gain(traits: Array, epochs: int, full_epochs: int) -> Array:
    gain: Array = math.log(full_epochs / epochs) * (traits @ _GAINS)
    return gain


def depth_of(architecture: Architecture) -> int:
    """Return how many convolutions an image passes one after the other, at least 1."""
    parts = [block.repeats * len(parts_of(block, 1)) for block in architecture.blocks]
    return max(1, sum(parts))


def has_spatial_head(architecture: Architecture) -> bool:
    """Return whether the classifier sees each place of the last maps, not their means."""
    return architecture.head.kind in {"flatten", "conv"}


def evidence_of(candidate: Candidate, val_size: int, first_epochs: int) -> Evidence:
    """Return the evidence of all completed trainings of the candidate.

    ``first_epochs`` is how long the first training of a candidate is.
    """
    ends = [(t.epochs, t.curve[-1]) for t in candidate.trainings if t.curve]
    if candidate.state == "complete" and candidate.curve:
        ends.insert(0, (first_epochs, candidate.curve[-1]))
    results: dict[int, list[float]] = {}
    for epochs, end in ends:
        bad = badness(end.val_loss, end.val_accuracy, val_size)
        results.setdefault(epochs, []).append(bad)
    return Evidence(
        candidate.trial,
        candidate.num_params,
        candidate.macs,
        results,
        family_of(candidate.architecture),
        depth_of(candidate.architecture),
        has_spatial_head(candidate.architecture),
    )


def family_of(architecture: Architecture) -> str:
    """Return the structure of a network: kinds, kernels, downsampling."""
    blocks = [
        f"{kind_and_kernel(block)}x{block.repeats}"
        + ("/" if block.stride > 1 or block.pool != "none" else "")
        for block in architecture.blocks
    ]
    return " ".join([*blocks, architecture.head.kind])


@dataclass(frozen=True, slots=True)
class Ranks:
    """One number for each candidate, float ``[N]``; nan without a completed training.

    ``residuals`` tell how much worse (+) or better (-) it is than others of its size,
    ``predicted`` how bad a full training would be, up to a constant. ``merits`` are the
    residuals with what the compute costs: the lower the better, too. ``trend`` gives for
    a number of parameters what is to be expected of a net of that size. ``typical_macs``
    are those of a net of the largest size with the median of MACs a parameter.
    """

    residuals: Array
    predicted: Array
    merits: Array
    trend: Callable[[float], float]
    typical_macs: float


def rank(
    evidence: Sequence[Evidence],
    fidelities: Sequence[int],
    *,
    compute_cost: float = 0.0,
) -> Ranks:
    """Rank the candidates by all that is known; ``fidelities`` rise to the full one.

    Compute takes the time of the search and of the device: a net with as many MACs as a
    typical one of the largest size has to be better by ``compute_cost`` than one without
    any for the same merit. So it matters most at the cap, and little for small nets.
    """
    sizes = np.log([max(e.num_params, 1) for e in evidence]).astype(np.float64)
    compute = np.log([max(e.macs, 1) for e in evidence])
    traits = np.array([e.traits() for e in evidence]).reshape(-1, len(_GAINS))
    scores: Array = np.full(len(evidence), np.nan)
    expected: Array = np.zeros(len(evidence))
    trends: list[_Polynomial] = []
    for epochs in fidelities:
        values: Array = np.array(
            [
                statistics.fmean(e.results[epochs]) if e.results.get(epochs) else np.nan
                for e in evidence
            ]
        )
        values -= _gain(traits, epochs, fidelities[-1])
        known = ~np.isnan(values)
        if not known.any():
            continue
        before = known & ~np.isnan(scores)
        if not before.any():
            trends.append(_trend(sizes[known], values[known], degree=2))
            expected = trends[0](sizes)
            scores[known] = (values - expected)[known]
            continue
        # The promoted few are too few for a trend of their own: the one of the shorter
        # training, shifted and tilted. What they are better by is already known.
        known_better = values - scores
        left = (known_better - expected)[before]
        scores += _by_traits(sizes, traits, before, left)
        shift = _trend(sizes[before], (values - scores - expected)[before], degree=1)
        trends.append(shift)
        expected = expected + shift(sizes)
        own = values - expected
        seeds = np.array([len(e.results.get(epochs, ())) for e in evidence])
        trust = np.where(seeds > 1, _TRUST_SEEDS, _TRUST)
        scores[before] = (trust * own + (1 - trust) * scores)[before]
        new = known & ~before
        scores[new] = own[new]
    typical = math.inf
    if len(evidence):
        typical = math.exp(float(np.median(compute - sizes)) + float(np.max(sizes)))
    merits = scores + compute_cost * np.exp(compute) / typical

    def trend(num_params: float) -> float:
        size = np.array([math.log(num_params)])
        return sum(float(one(size)[0]) for one in trends)

    return Ranks(scores, scores + expected, merits, trend, typical)


def _by_traits(
    sizes: Array, traits: Array, known: npt.NDArray[np.bool_], values: Array
) -> Array:
    """Return what the traits add to the values, which the ``known`` candidates have.

    What the size explains is taken out of both. Few candidates say little, so it is near 0
    then.
    """
    trends = [_trend(sizes[known], column[known], degree=1) for column in traits.T]
    apart = traits - np.column_stack([trend(sizes) for trend in trends])
    left = values - _trend(sizes[known], values, degree=1)(sizes[known])
    limit = _HUBER * max(float(np.median(np.abs(left))), 1e-9)
    some = apart[known]
    each: Array = np.linalg.solve(
        some.T @ some + _GAINS_KNOWN * np.eye(len(_GAINS)),
        some.T @ np.clip(left, -limit, limit),
    )
    added: Array = apart @ each
    return added


def _trend(sizes: Array, values: Array, *, degree: int) -> _Polynomial:
    """Fit a polynomial robustly; of lower degree if there are few points."""
    degree = min(degree, max(0, (len(np.unique(sizes)) - 1) // 4))
    middle, spread = float(np.mean(sizes)), float(np.std(sizes)) or 1.0
    design = np.vander((sizes - middle) / spread, degree + 1)
    weights = np.ones(len(sizes))
    # A small ridge penalty on all but the constant, so that few points do not bend it.
    ridge = np.diag([0.1] * degree + [0.0])
    for _ in range(5):
        weighted = design * weights[:, None]
        solution = np.linalg.solve(
            weighted.T @ design + ridge + 1e-9 * np.eye(degree + 1), weighted.T @ values
        )
        left = np.abs(values - design @ solution)
        limit = _HUBER * max(float(np.median(left)), 1e-9)
        weights = np.minimum(1.0, limit / np.maximum(left, 1e-12))
    return _Polynomial(solution, middle, spread)


@dataclass(frozen=True, slots=True)
class _Polynomial:
    coefficients: Array
    middle: float
    spread: float

    def __call__(self, sizes: Array) -> Array:
        value: Array = np.polyval(
            self.coefficients, (sizes - self.middle) / self.spread
        )
        return value
