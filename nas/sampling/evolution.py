"""Proposes the next candidate: a mutation of one that did well at about its size.

A regularised evolution that knows sizes. The size comes first, from a sequence that
covers the range evenly. A parent is then chosen in a tournament among candidates of
about that size, by how much better they are than the trend of their size; it is
changed in a few decisions and resized. Some candidates are drawn at random throughout,
and some structures travel from far other sizes unchanged, so that no structure settles
everywhere before the evidence says so.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.architecture import Architecture, Head, Shape
from nas.candidates.candidate import Origin
from nas.candidates.ranking import Evidence, family_of, rank
from nas.sampling.mutation import mutate
from nas.sampling.starters import STARTERS, Starter, made
from nas.sampling.surrogate import LOG_MACS, LOG_PARAMS, Array, Surrogate, features
from nas.space.completion import Caps
from nas.space.definition import SearchSpace
from nas.space.drawing import RandomDraws, sample, size_of
from nas.space.encoding import encode
from nas.space.limits import smallest


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionRule:
    """The numbers of the evolution.

    The first ``start`` trials are random (and plain nets), later the share ``random``,
    which the share falls to within some ``fading`` trials; of these the share ``regular``
    has all blocks but the first alike. The share ``at_cap`` of all aims
    at the cap itself. Parents are looked for within about a factor e**``window`` in
    size; the share ``travel`` anywhere. The best ``breeders`` candidates of a window
    become most of the parents. Of so many ``children`` the one is trained that the
    surrogate expects most of. ``changes`` weighs 0, 1, 2 ... changed decisions. With e
    times as many nets of one structure, another one may be worse by ``crowding``; with
    the MACs of a typical net at the cap a net has to be better by ``compute_cost``.
    """

    start: int = 8
    fading: float = 12.0
    random: float = 0.2
    regular: float = 0.5
    at_cap: float = 0.15
    window: float = 0.7
    travel: float = 0.2
    breeders: float = 8.0
    children: int = 8
    changes: tuple[float, ...] = (1.0, 4.0, 3.0, 1.0)
    crowding: float = 0.04
    compute_cost: float = 0.05

    def random_share(self, number: int) -> float:
        """Return the probability that this trial is drawn at random."""
        if number < self.start:
            return 1.0
        faded = math.exp(-(number - self.start) / self.fading)
        return self.random + (0.5 - self.random) * faded


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed candidate, its decisions and its origin."""

    architecture: Architecture
    draws: dict[str, float]
    origin: Origin
    parent: int | None = None


@dataclass(slots=True)
class _Known:
    architecture: Architecture
    features: Array
    evidence: Evidence


class Evolution:
    """Proposes candidates for one study and learns from their results."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        input_shape: Shape,
        num_classes: int,
        caps: Caps,
        levels: Sequence[int],
        rule: EvolutionRule = EvolutionRule(),
    ) -> None:
        """Start without results. ``levels`` are the study's fidelities in epochs."""
        self._space, self._caps, self._rule = space, caps, rule
        self._input_shape, self._num_classes = input_shape, num_classes
        self._levels = levels
        self._known: dict[int, _Known] = {}
        self._learnt_since = 0
        self._parents: list[_Known] = []
        self._families: Counter[str] = Counter()
        self._merits: Array = np.empty(0)
        self._log_sizes: Array = np.empty(0)
        self._surrogate: Surrogate | None = None
        self._typical_macs = math.inf

    def learn(self, architecture: Architecture, evidence: Evidence) -> None:
        """Update the results of a candidate."""
        known = self._known.get(evidence.trial)
        described = features(architecture) if known is None else known.features
        self._known[evidence.trial] = _Known(architecture, described, evidence)
        self._learnt_since += 1

    def evidence(self) -> list[Evidence]:
        """Return the candidates with a complete training, by trial."""
        known = (self._known[trial].evidence for trial in sorted(self._known))
        return [evidence for evidence in known if evidence.results]

    def propose(self, *, number: int, attempt: int, size: float, seed: int) -> Proposal:
        """Return the proposal for the trial of that number, counted after the user's.

        ``size`` is where in the space's range of sizes to draw, 0 to 1; ``attempt``
        counts those for the same trial, whose proposals the study already had. The same
        arguments and the same knowledge give the same proposal.
        """
        rng = random.Random(seed)
        rule, space = self._rule, self._space
        if number < len(STARTERS) and not attempt:
            started = self._started(STARTERS[number])
            if started is not None:
                return started
        if rng.random() < rule.at_cap:
            size = 1.0
        if rng.random() >= rule.random_share(number):
            self._update()
            if self._parents:
                found = self._best_child(self._wanted(size), rng)
                if found is not None:
                    return found
        regular = rng.random() < rule.regular
        draws = Recorder(rng.getrandbits(32), regular=regular, size=size)
        architecture = sample(
            space,
            draws,
            input_shape=self._input_shape,
            num_classes=self._num_classes,
            caps=self._caps,
        )
        return Proposal(architecture, draws.values, "random")

    def _wanted(self, size: float) -> int:
        least = smallest(self._space, self._input_shape, self._num_classes, self._caps)
        return size_of(size, least, self._caps.num_params or 0, self._space)

    def _update(self) -> None:
        """Rank all candidates again if enough trainings have ended since."""
        if self._learnt_since < max(1, len(self._known) // _SHARE_TO_RANK_ANEW):
            return
        self._learnt_since = 0
        known = [self._known[trial] for trial in sorted(self._known)]
        ranks = rank(
            [k.evidence for k in known],
            self._levels,
            compute_cost=self._rule.compute_cost,
        )
        self._typical_macs = ranks.typical_macs
        scores: Array = ranks.residuals.copy()
        judged = ~np.isnan(scores)
        self._parents = [k for k, good in zip(known, judged, strict=True) if good]
        self._families = Counter(k.evidence.family for k in self._parents)
        crowds = [self._crowd(k.evidence.family) for k in self._parents]
        self._merits = ranks.merits[judged] + crowds
        self._log_sizes = np.log(
            [float(k.evidence.num_params) for k in self._parents], dtype=np.float64
        )
        if len(self._parents) < _LEAST_FOR_SURROGATE:
            self._surrogate = None
            return
        # What was pruned is known to be bad, but not how bad.
        scores[~judged] = np.percentile(scores[judged], 90)
        self._surrogate = Surrogate([k.features for k in known], list(scores))

    def _best_child(self, wanted: int, rng: random.Random) -> Proposal | None:
        """Return the most promising of several children of several parents."""
        children = [
            child
            for _ in range(self._rule.children if self._surrogate else 1)
            if (child := self._child(wanted, rng)) is not None
        ]
        for child in self._in_order(children, wanted, rng):
            # Only for the chosen one, as it takes longer than the making of a child.
            draws = encode(self._space, child.architecture, self._caps)
            if draws is not None:
                return replace(child, draws=draws)
        return None

    def _in_order(
        self, children: list[Proposal], wanted: int, rng: random.Random
    ) -> list[Proposal]:
        """Return the children, the most promising first."""
        if self._surrogate is None or len(children) < 2:
            return children
        described = [features(child.architecture) for child in children]
        mean, spread = self._surrogate.predict(described)
        # Thompson sampling: uncertain children get a chance.
        merits = [
            m
            + _BOLDNESS * s * rng.gauss(0, 1)
            + self._rule.compute_cost * math.exp(row[LOG_MACS]) / self._typical_macs
            + _SHORTFALL * max(0.0, math.log(wanted) - row[LOG_PARAMS])
            + self._crowd(family_of(child.architecture))
            for m, s, row, child in zip(mean, spread, described, children, strict=True)
        ]
        order = sorted(range(len(children)), key=merits.__getitem__)
        return [children[place] for place in order]

    def _crowd(self, family: str) -> float:
        """Return the crowding penalty of a structure that was tried often."""
        return self._rule.crowding * math.log(max(1, self._families[family]))

    def _child(self, wanted: int, rng: random.Random) -> Proposal | None:
        """Return a mutated and resized child of a parent, without its draws."""
        travels = rng.random() < self._rule.travel
        parent = self._tournament(wanted, rng, anywhere=travels)
        weights = list(self._rule.changes)
        if 0.8 < parent.evidence.num_params / wanted < 1.25:
            weights[0] = 0.0  # nearly the same network again
        elif travels:
            weights[0] *= 4
        changes = rng.choices(range(len(weights)), weights)[0]
        found = mutate(
            self._space,
            parent.architecture,
            self._caps,
            num_params=wanted,
            changes=changes,
            rng=rng,
        )
        if found is None:
            return None
        origin: Origin = "mutated" if changes else "resized"
        return Proposal(found, {}, origin, parent.evidence.trial)

    def _tournament(self, wanted: int, rng: random.Random, *, anywhere: bool) -> _Known:
        """Tournament: return the best of a few, drawn with more weight the closer in size."""
        distance = (self._log_sizes - math.log(wanted)) / self._rule.window
        weights = np.exp(-0.5 * distance**2) + 1e-6
        if anywhere:
            weights = np.ones(len(self._parents))
        # Effective number of candidates in the window: the sum of weights, each at most 1.
        total = float(weights.sum())
        entrants = max(2, round(total / self._rule.breeders))
        points = [rng.random() * total for _ in range(entrants)]
        places = np.searchsorted(np.cumsum(weights), points)
        places = np.minimum(places, len(self._parents) - 1)
        best: int = min(places.tolist(), key=lambda p: (self._merits[p], p))
        return self._parents[best]

    def _started(self, starter: Starter) -> Proposal | None:
        """Return a starter; None where space or caps do not hold it."""
        nothing = Architecture(
            input_shape=self._input_shape,
            num_classes=self._num_classes,
            blocks=(),
            head=Head(kind="gap"),
        )
        found = made(starter, self._space, nothing, self._caps)
        return None if found is None else Proposal(*found, "plain")


# What each block of a regular net decides for itself.
_EACH_ITS_OWN = ("downsampling", "deviation")
_OWN_WIDTH = 0.15


class Recorder:
    """Random draws that are kept by name.

    In a ``regular`` net all blocks but the first have kind, kernel, repeats and the like
    in common, as in nets that people draw (Radosavovic et al. 2020, "Designing network
    design spaces", find such spaces to hold better nets).
    """

    def __init__(self, seed: int, *, regular: bool = False, **fixed: float) -> None:
        self._draws, self._fixed = RandomDraws(seed), fixed
        self._common: dict[str, float] | None = {} if regular else None
        self.values: dict[str, float] = {}

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Return a uniform number from low to high, or the fixed one of that name."""
        drawn = self._draws.suggest_float(name, low, high)
        block, _, decision = name.partition(".")
        alike = decision not in ("", *_EACH_ITS_OWN) and block != "block_1"
        if self._common is not None and block.startswith("block_") and alike:
            common = self._common.setdefault(decision, drawn)
            # Widths that were quite alike would all grow at once, past the wanted size.
            own = _OWN_WIDTH if decision == "width" else 0.0
            drawn = common + own * (drawn - common)
        self.values[name] = self._fixed.get(name, drawn)
        return self.values[name]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a uniform whole number from low to high, both included."""
        self.values[name] = self._draws.suggest_int(name, low, high)
        return int(self.values[name])


# Candidates are ranked again after trainings of one in this many of them.
_SHARE_TO_RANK_ANEW = 200
_LEAST_FOR_SURROGATE = 15
_BOLDNESS = 0.5
# Penalty per factor e in size for children that end up smaller than the wanted size,
# since they compete with children that reach it.
_SHORTFALL = 0.6
