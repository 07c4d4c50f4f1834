"""Possible winners under a cap: a study's candidates, and the best structures resized.

Candidates lie where the search drew them, seldom right below the cap that the user asks
for. What was best at other sizes, with the widths that the cap allows, is often better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from nas.architecture import Architecture
from nas.architecture.cost import cost
from nas.candidates.candidate import Candidate
from nas.candidates.ranking import evidence_of, family_of, rank
from nas.sampling.mutation import express, genome_of
from nas.space import Caps
from nas.space.definition import SearchSpace
from nas.space.reading import read_space
from nas.study.settings import Settings

# How much of what a net is better than others of its size remains at another size. Pairs
# of nets of one structure whose sizes differ by up to a factor of 4.5 kept 0.6 to 0.7 of
# it, those further apart 0.2 (three studies on MNIST, benchmarks/decisions.py).
_KEPT = 0.75
_REACH = 1.0  # in log size
# A structure that was tried this close to the cap needs no resizing.
_NEAR = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A possible winner: a candidate, or a candidate's architecture at another size.

    ``trial`` is the candidate's. ``resized`` tells whether this is not the architecture
    of that trial, but that with other widths; then nothing was trained in the search and
    ``search_val_accuracy`` is None.
    """

    trial: int
    resized: bool
    architecture: Architecture
    num_params: int
    macs: int
    peak_memory: int
    key: str
    search_val_accuracy: float | None
    compute: float = field(default=0.0, compare=False)
    """What its MACs cost, in badness, where contenders compete for trainings."""

    @classmethod
    def from_candidate(cls, candidate: Candidate) -> Self:
        """Return the candidate as the search trained it."""
        return cls(
            trial=candidate.trial,
            resized=False,
            architecture=candidate.architecture,
            num_params=candidate.num_params,
            macs=candidate.macs,
            peak_memory=candidate.peak_memory,
            key=candidate.key,
            search_val_accuracy=candidate.val_accuracy,
        )

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"trial {self.trial}" + (" resized" if self.resized else "")


def contenders(
    candidates: Sequence[Candidate],
    small_enough: Sequence[Candidate],
    settings: Settings,
    max_params: int,
) -> list[Contender]:
    """Return those that may win under the cap, the most promising first.

    As in the search, what a contender's compute costs is added to its badness, since it
    is the time of its trainings.

    All ``candidates`` tell how loss falls with size; those ``small_enough`` may win as
    they are. To these come the best structures of all sizes, as wide as the cap allows.
    """
    evidence = [
        evidence_of(c, settings.noise_size, settings.levels[0]) for c in candidates
    ]
    ranks = rank(evidence, settings.levels)
    residual = dict(zip((c.trial for c in candidates), ranks.residuals, strict=True))
    predicted = dict(zip((c.trial for c in candidates), ranks.predicted, strict=True))
    promise = {(c.trial, c.key): float(predicted[c.trial]) for c in small_enough}
    known = {c.key for c in candidates}
    budget = min(max_params, settings.param_budget)
    caps = replace(settings.caps, num_params=budget)
    space = read_space(settings.space_toml, settings.space)
    found = [Contender.from_candidate(c) for c in small_enough]
    families = {
        family_of(c.architecture)
        for c in small_enough
        if c.num_params >= _NEAR * budget
    }

    def still_better(candidate: Candidate) -> float:
        distance = math.log(budget / candidate.num_params) / _REACH
        kept = _KEPT * math.exp(-(distance**2) / 2)
        return kept * float(residual[candidate.trial])

    measured = [c for c in candidates if not math.isnan(residual[c.trial])]
    for candidate in sorted(measured, key=still_better):
        family = family_of(candidate.architecture)
        if not still_better(candidate) < 0 or family in families:
            continue
        resized = _resized(candidate, space, caps)
        if resized is None or resized.num_params < _NEAR * budget:
            continue
        families.add(family)
        if resized.key not in known:
            trend = ranks.trend(resized.num_params)
            promise[resized.trial, resized.key] = trend + still_better(candidate)
            found.append(resized)
    price = settings.evolution.compute_cost / ranks.typical_macs
    found = [replace(c, compute=price * c.macs) for c in found]
    return sorted(
        found, key=lambda c: (promise[c.trial, c.key] + c.compute, c.num_params)
    )


def _resized(candidate: Candidate, space: SearchSpace, caps: Caps) -> Contender | None:
    """Return the candidate as wide as space and caps allow, None where they do not."""
    architecture = candidate.architecture
    sized = express(space, genome_of(space, architecture), architecture, caps)
    if sized is None or sized.key == architecture.key:
        return None
    costs = cost(sized)
    return Contender(
        trial=candidate.trial,
        resized=True,
        architecture=sized,
        num_params=costs.num_params,
        macs=costs.macs,
        peak_memory=costs.peak_memory,
        key=sized.key,
        search_val_accuracy=None,
    )
