"""A candidate: an architecture with its size, its learning curve and its state."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from nas.architecture import Architecture
from nas.candidates.pareto import pareto_front
from nas.training.report import RungReport

State = Literal["running", "complete", "pruned", "failed"]


Origin = Literal["start", "plain", "random", "mutated", "resized"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A longer training of a candidate that was promoted.

    ``seed_number`` counts the seeds of one candidate at one number of ``epochs``. An
    empty ``curve`` is that of a training that failed. ``ended`` is when, in seconds since
    1970, None in older studies.
    """

    trial: int
    epochs: int
    seed_number: int
    curve: tuple[RungReport, ...]
    ended: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One trial of a study, as far as it has come.

    ``macs`` are multiply-accumulates for one image, ``peak_memory`` is bytes of int8
    activations. ``curve`` is that of the first, short training, which decides the
    ``state``; ``trainings`` are the longer ones since. ``val_accuracy`` and ``val_loss``
    are those of the longest training, the mean over its seeds, None before the first
    report; ``epochs`` is how long that training was and ``seeds`` how many there were.
    ``fully_trained`` tells whether it was the longest that the study has. ``reason``
    says why a trial was pruned or failed. ``origin`` and ``parent`` tell where the
    architecture came from: drawn at random, or made from another trial's. Up to the
    ``chance_level`` an accuracy may be that of always answering one class.
    """

    trial: int
    architecture: Architecture
    num_params: int
    macs: int
    peak_memory: int
    key: str
    state: State
    seed: int
    curve: tuple[RungReport, ...] = ()
    val_accuracy: float | None = None
    val_loss: float | None = None
    reason: str | None = None
    origin: Origin = "random"
    parent: int | None = None
    trainings: tuple[Training, ...] = ()
    fully_trained: bool = True
    chance_level: float = 0.0

    @property
    def epochs(self) -> float:
        """Epochs of the training that its accuracy is from; 0 before any."""
        longest = max((t.epochs for t in self.trainings if t.curve), default=0)
        return longest or (self.curve[-1].epochs if self.curve else 0)

    @property
    def seeds(self) -> int:
        """Number of trainings that its accuracy is the mean of."""
        return max(1, sum(t.epochs == self.epochs for t in self.trainings if t.curve))


def with_training(candidate: Candidate, training: Training, full: int) -> Candidate:
    """Return the candidate with one more training; ``full`` is the longest there is."""
    trainings = (*candidate.trainings, training)
    done = [t for t in trainings if t.curve]
    if not done:
        return replace(candidate, trainings=trainings)
    longest = max(t.epochs for t in done)
    ends = [t.curve[-1] for t in done if t.epochs == longest]
    return replace(
        candidate,
        trainings=trainings,
        val_accuracy=statistics.fmean(end.val_accuracy for end in ends),
        val_loss=mean_loss(ends),
        fully_trained=longest >= full,
    )


def mean_loss(reports: Sequence[RungReport]) -> float | None:
    """Return the mean validation loss, None where it was not measured."""
    losses = [report.val_loss for report in reports if report.val_loss is not None]
    return statistics.fmean(losses) if losses else None


def may_be_on_front(candidate: Candidate) -> bool:
    """Return whether it is complete and better than always answering one class."""
    if candidate.state != "complete":
        return False
    chance = candidate.chance_level
    return chance == 0.0 or (candidate.val_accuracy or 0.0) > chance


def chance_level(share: float, images: int) -> float:
    """Return the accuracy up to which a network may just answer one class.

    Always answering it has the accuracy ``share``; ``images`` is how many it was measured
    on. The noise is two standard errors.
    """
    return share + 2 * math.sqrt(share * (1 - share) / max(1, images))


def front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the fully trained candidates that none dominates, smallest first.

    As long as none is fully trained, those that have completed their short training
    stand in. The last accuracy of a pruned or running one was measured before its
    learning rate had come down: it never counts. Nor does a net that may do no more
    than answer one class always.
    """
    complete = [c for c in candidates if may_be_on_front(c)]
    members = [c for c in complete if c.fully_trained] or complete
    points = [(c.num_params, c.val_accuracy or 0.0) for c in members]
    return [members[i] for i in pareto_front(points)]
