"""Trains contenders for `nas best`, and keeps what their trainings have measured."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from nas.candidates.candidate import Candidate, mean_loss
from nas.candidates.ranking import badness, gain_of_longer_training
from nas.engines import Engine, Finished, Job, Mode, Reported, kernels_ran_in_all
from nas.search.contenders import Contender
from nas.search.kept_trainings import KeptTrainings
from nas.search.promotions import promotion_rungs
from nas.search.train_all import train_all
from nas.study.settings import Settings, derived_seed
from nas.training.recipe import Recipe
from nas.training.report import Metric, RungReport

if TYPE_CHECKING:
    import numpy as np

_logger = logging.getLogger("nas")
Stage = Literal["screening", "finalist", "winner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEvent:
    """One step of a retraining, for display."""

    stage: Stage
    trial: int
    resized: bool
    num_params: int
    seed: int
    report: RungReport | None = None
    test_accuracy: float | None = None
    last: bool = False
    """Whether it is the last report of a training."""


Show = Callable[[ProgressEvent], None]


class Results:
    """What trainings by one recipe have measured: those of the study, and later ones."""

    def __init__(
        self,
        candidates: Iterable[Candidate],
        recipe: Recipe,
        metric: Metric,
        settings: Settings,
    ) -> None:
        self._val_size = settings.noise_size
        self._ends: dict[str, list[RungReport]] = {}
        epochs = recipe.epochs
        own = replace(settings.recipe, epochs=epochs), settings.metric
        if (recipe, metric) != own:
            return  # the study's measurements used another recipe
        for c in candidates:
            ends = [t.curve[-1] for t in c.trainings if t.curve and t.epochs == epochs]
            if settings.recipe.epochs == epochs and c.state == "complete" and c.curve:
                ends.insert(0, c.curve[-1])
            if ends:
                self._ends[c.key] = ends

    def add(self, contender: Contender, end: RungReport) -> None:
        """Add the last report of a training."""
        self._ends.setdefault(contender.key, []).append(end)

    def count(self, contender: Contender) -> int:
        """Return the number of trainings of that contender."""
        return len(self._ends.get(contender.key, ()))

    def accuracy(self, contender: Contender) -> float:
        """Return the mean validation accuracy, 0 to 1."""
        return statistics.fmean(e.val_accuracy for e in self._ends[contender.key])

    def loss(self, contender: Contender) -> float | None:
        """Return the mean validation loss; None where a training did not measure it."""
        return mean_loss(self._ends[contender.key])

    def badness(self, contender: Contender) -> float:
        """Return the value that the choice minimises; see nas.candidates.ranking."""
        return statistics.fmean(
            badness(end.val_loss, end.val_accuracy, self._val_size)
            for end in self._ends[contender.key]
        )

    def are_close(self, first: Contender, second: Contender, least: float) -> bool:
        """Whether another seed could turn the order of two contenders around.

        That is the case where their badness differs by less than ``least``, or by less
        than two standard deviations of what the number of validation images allows.
        """
        errors = max(1.0, (1 - self.accuracy(first)) * self._val_size)
        difference = abs(self.badness(first) - self.badness(second))
        # Half the log of a count of errors varies by 1 / (2 sqrt(errors)), a difference of
        # two by sqrt(2) times that.
        return difference < max(least, math.sqrt(2 / errors))


class FinalTrainings(NamedTuple):
    """The winner's trainings on all training images."""

    test_accuracies: list[float]
    weights: dict[str, np.ndarray]
    """Those of the first training."""
    confusions: list[list[list[int]] | None]
    kernels: bool | None
    """Whether the CPU kernels ran."""


class Trainer:
    """Trains contenders by one recipe, on an engine, until all have ended."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        recipe: Recipe,
        metric: Metric,
        candidates: Sequence[Candidate],
        show: Show,
        kept: KeptTrainings | None,
    ) -> None:
        """Take what to train with; ``candidates`` are those with results in the study."""
        self._engine, self._settings, self._candidates = engine, settings, candidates
        self.recipe, self._metric = recipe, metric
        self._show, self._kept = show, kept
        self.results = Results(candidates, recipe, metric, settings)

    def for_epochs(self, epochs: int) -> Self:
        """Return a trainer by the same recipe with another number of epochs."""
        return type(self)(
            self._engine,
            self._settings,
            replace(self.recipe, epochs=epochs),
            self._metric,
            self._candidates,
            self._show,
            self._kept,
        )

    def train(self, some: Sequence[Contender], stage: Stage) -> None:
        """Train each once more on the training split, with a seed of its own.

        Where that fails, a warning says so and `results` has nothing new.
        """
        jobs = []
        for number, c in enumerate(some):
            who = f"{c.trial} {c.key}" if c.resized else c.trial
            seed = derived_seed(
                self._settings.seed,
                "promote",
                who,
                self.recipe.epochs,
                self.results.count(c),
            )
            jobs.append(self._job(c, number, seed, "search"))
        ends: dict[int, RungReport] = {}
        failed: set[int] = set()

        def leave_out(job: Job, cause: str) -> None:
            failed.add(job.number)
            name = some[job.number].name
            _logger.warning("%s is left out, its training failed: %s", name, cause)

        for job, event in self._run(jobs, some, stage, leave_out):
            if isinstance(event, Reported):
                ends[job.number] = event.report
        for number, c in enumerate(some):
            if number not in failed:
                self.results.add(c, ends[number])

    def by_promise(
        self, some: Iterable[Contender], full_epochs: int
    ) -> list[Contender]:
        """Return the contenders in the order to expect after a full training.

        What their compute costs counts here; it does not for the choice of the winner.
        """

        def promise(one: Contender) -> tuple[float, int]:
            gain = gain_of_longer_training(
                one.architecture, one.macs, self.recipe.epochs, full_epochs
            )
            return self.results.badness(one) - gain + one.compute, one.num_params

        return sorted(some, key=promise)

    def final(self, winner: Contender, seeds: int) -> FinalTrainings:
        """Train on training and validation data, once for each seed, and test."""
        jobs = [
            self._job(winner, number, final_seed(self._settings, number), "final")
            for number in range(seeds)
        ]
        ended: dict[int, Finished] = {}
        for job, event in self._run(jobs, [winner] * seeds, "winner"):
            if isinstance(event, Finished):
                ended[job.number] = event
        ends = [ended[number] for number in range(seeds)]
        return FinalTrainings(
            [end.test_accuracy or 0.0 for end in ends],
            ends[0].weights or {},
            [end.test_confusion for end in ends],
            kernels_ran_in_all(end.kernels for end in ends),
        )

    def _job(self, contender: Contender, number: int, seed: int, mode: Mode) -> Job:
        return Job(
            number=number,
            architecture=contender.architecture,
            recipe=self.recipe,
            seed=seed,
            rungs=promotion_rungs(self.recipe.epochs),
            mode=mode,
            metric=self._metric,
        )

    def _run(
        self,
        jobs: Sequence[Job],
        trained: Sequence[Contender],
        stage: Stage,
        leave_out: Callable[[Job, str], None] | None = None,
    ) -> list[tuple[Job, Reported | Finished]]:
        """Train all jobs; return their reports and ends, see `train_all`."""

        def show(job: Job, event: Reported | Finished) -> None:
            self._show(_event(stage, job, trained[job.number], event))

        names = [contender.name for contender in trained]
        return train_all(
            self._engine, jobs, names, show, self._kept, leave_out=leave_out
        )


def final_seed(settings: Settings, number: int) -> int:
    """Return the seed of the winner's training of that number."""
    return derived_seed(settings.seed, "final", number)


def _event(
    stage: Stage, job: Job, contender: Contender, event: Reported | Finished
) -> ProgressEvent:
    return ProgressEvent(
        stage=stage,
        trial=contender.trial,
        resized=contender.resized,
        num_params=contender.num_params,
        seed=job.seed,
        report=event.report if isinstance(event, Reported) else None,
        test_accuracy=event.test_accuracy if isinstance(event, Finished) else None,
        last=isinstance(event, Reported) and event.report.rung == len(job.rungs) - 1,
    )
