"""From the candidates to the winner: contenders, the choice, the full training.

The contenders are those of all allowed sizes, and the best structures resized to the
cap, that are expected to be the best after a full training, by all that the search has
measured. Each is fully trained on the training
split; the two best get another seed; the choice is by validation loss and error, over
all seeds. The winner is trained anew on training and validation data together, once for
each seed, and the test set is read once a seed, after the last epoch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.candidates.candidate import Candidate, front, mean_loss
from nas.candidates.ranking import badness
from nas.engines import Engine, Finished, Job, Mode, Reported, all_of
from nas.environment import versions
from nas.errors import StudyError
from nas.search.balance import balance
from nas.search.contenders import contenders, is_resized
from nas.search.kept_trainings import Trainings
from nas.search.train_all import train_all
from nas.study.settings import Settings, derived_seed
from nas.training.recipe import Recipe
from nas.training.report import Metric, RungReport

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionCriteria:
    """What the user wants: the most accurate network, or the smallest accurate enough.

    ``max_params`` limits both. With ``min_accuracy`` (validation, 0 to 1) it is the
    smallest member of the front that reaches it after a full training. ``finalists``
    is how many contenders are fully trained before the choice, or at a time.
    """

    max_params: int
    min_accuracy: float | None = None
    finalists: int = 4
    epochs: int = 15
    seeds: int = 1
    recipe: Recipe | None = None
    """How all are trained, but for the epochs; None is as in the study."""
    metric: Metric | None = None
    """What the choice is by; None is as in the study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEvent:
    """One step of a retraining, for display."""

    stage: str
    trial: int
    resized: bool
    num_params: int
    seed: int
    report: RungReport | None = None
    test_accuracy: float | None = None
    last: bool = False
    """Whether it is the last report of a training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The chosen candidate, the weights of its first seed, and the report."""

    candidate: Candidate
    weights: dict[str, np.ndarray]
    report: dict[str, Any]


Show = Callable[[ProgressEvent], None]


def retrain(
    candidates: Sequence[Candidate],
    settings: Settings,
    engine: Engine,
    criteria: SelectionCriteria,
    *,
    hardware: dict[str, Any],
    show: Show = lambda _: None,
    kept: Trainings | None = None,
    data_name: str | None = None,
) -> Winner:
    """Choose the winner among the front's members and train it to the end.

    What has been trained is put into ``kept``, and what is there not trained again.
    ``data_name`` is what the report names the data set, by default as the study does.
    Raises StudyError when there is nothing to choose from, or no net is accurate
    enough.
    """
    began = time.monotonic()
    small_enough = allowed(candidates, criteria, settings)
    recipe = replace(criteria.recipe or settings.recipe, epochs=criteria.epochs)
    metric = criteria.metric or settings.metric
    runs = _Runs(engine, settings, recipe, metric, show, kept)
    measured = _Measured(small_enough, recipe, metric, settings)
    if criteria.min_accuracy is None:
        winner = _most_accurate(
            candidates, small_enough, criteria, settings, runs, measured
        )
    else:
        winner = _smallest_reaching(front(small_enough), criteria, runs, measured)
    tests, weights, confusions, kernels = runs.final(winner, criteria.seeds)
    report = {
        "study": settings.name,
        "dataset": data_name or settings.dataset,
        "trial": winner.trial,
        "resized": is_resized(winner),
        "key": winner.key,
        "num_params": winner.num_params,
        "macs": winner.macs,
        "peak_memory": winner.peak_memory,
        "epochs": criteria.epochs,
        "seeds": criteria.seeds,
        "test_accuracy": tests,
        "test_accuracy_mean": statistics.fmean(tests),
        "test_accuracy_std": statistics.stdev(tests) if len(tests) > 1 else None,
        "test_accuracy_is": "after the last epoch, read once a seed; trained on the "
        "training and validation data",
        **balance(confusions),
        "val_accuracy": measured.accuracy(winner),
        "val_loss": measured.loss(winner),
        "val_accuracy_is": f"{metric.replace('-', ' ')} after {criteria.epochs} epochs on "
        "the training split alone",
        "metric": metric,
        "finalists": [
            {
                "trial": c.trial,
                "resized": is_resized(c),
                "num_params": c.num_params,
                "search_val_accuracy": c.val_accuracy,
                "val_accuracy": measured.accuracy(c),
                "val_loss": measured.loss(c),
                "seeds": measured.count(c),
            }
            for c in measured.finalists
        ],
        "recipe": asdict(recipe),
        "seed_values": [_seed(settings, number) for number in range(criteria.seeds)],
        "weights_seed": _seed(settings, 0),
        "c_kernels": kernels,
        "duration_seconds": round(time.monotonic() - began, 1),
        "versions": versions(),
        "hardware": hardware,
    }
    return Winner(candidate=winner, weights=weights, report=report)


class _Measured:
    """Results of trainings with that recipe, in the study and since."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        recipe: Recipe,
        metric: Metric,
        settings: Settings,
    ) -> None:
        self._val_size = settings.noise_size
        self._ends: dict[str, list[RungReport]] = {}
        self.finalists: list[Candidate] = []
        epochs = recipe.epochs
        own = replace(settings.recipe, epochs=epochs), settings.metric
        if (recipe, metric) != own:
            return  # the study's measurements used another recipe
        for c in candidates:
            ends = [t.curve[-1] for t in c.trainings if t.curve and t.epochs == epochs]
            if settings.recipe.epochs == epochs and c.curve:
                ends.insert(0, c.curve[-1])
            if ends:
                self._ends[c.key] = ends

    def add(self, candidate: Candidate, end: RungReport) -> None:
        self._ends.setdefault(candidate.key, []).append(end)

    def count(self, candidate: Candidate) -> int:
        return len(self._ends.get(candidate.key, ()))

    def accuracy(self, candidate: Candidate) -> float:
        return statistics.fmean(e.val_accuracy for e in self._ends[candidate.key])

    def loss(self, candidate: Candidate) -> float | None:
        return mean_loss(self._ends[candidate.key])

    def badness(self, candidate: Candidate) -> float:
        """Return the value that the choice minimises; see nas.candidates.ranking."""
        return statistics.fmean(
            badness(end.val_loss, end.val_accuracy, self._val_size)
            for end in self._ends[candidate.key]
        )


def allowed(
    candidates: Sequence[Candidate], criteria: SelectionCriteria, settings: Settings
) -> list[Candidate]:
    """Return the possible winners: candidates with a complete training that are small enough.

    Raises StudyError where there is none.
    """
    complete = [c for c in candidates if c.state == "complete"]
    if not complete:
        raise StudyError(
            f"the study {settings.name!r} has no fully trained candidate yet: run "
            f"`nas search --study {settings.name}` first"
        )
    small_enough = [c for c in complete if c.num_params <= criteria.max_params]
    if small_enough:
        return small_enough
    least = min(c.num_params for c in complete)
    raise StudyError(
        f"no fully trained candidate has at most {criteria.max_params} parameters: the "
        f"smallest has {least}; give at least --max-params {least}"
    )


def _most_accurate(
    candidates: Sequence[Candidate],
    small_enough: Sequence[Candidate],
    criteria: SelectionCriteria,
    settings: Settings,
    runs: _Runs,
    measured: _Measured,
) -> Candidate:
    """Fully train the most promising candidates and return the best."""
    finalists = contenders(candidates, small_enough, settings, criteria.max_params)
    finalists = finalists[: criteria.finalists]
    measured.finalists = sorted(finalists, key=lambda c: c.num_params)
    runs.finalists([c for c in finalists if not measured.count(c)], measured)
    # Among equally good ones, the smaller.
    finalists.sort(key=lambda c: (measured.badness(c), c.num_params))
    last_two = finalists[:2]
    if len(last_two) > 1:
        runs.finalists([c for c in last_two if measured.count(c) < 2], measured)
    return min(last_two, key=lambda c: (measured.badness(c), c.num_params))


def _smallest_reaching(
    members: Sequence[Candidate],
    criteria: SelectionCriteria,
    runs: _Runs,
    measured: _Measured,
) -> Candidate:
    """Return the smallest candidate that is accurate enough; train a few at a time."""
    wanted = criteria.min_accuracy or 0.0
    if not members:
        raise StudyError(
            "no net is better than always answering the largest class: search on, or "
            "leave --min-accuracy out"
        )
    for start in range(0, len(members), criteria.finalists):
        some = members[start : start + criteria.finalists]
        runs.finalists([c for c in some if not measured.count(c)], measured)
        measured.finalists += some
        for member in some:
            if measured.accuracy(member) >= wanted:
                return member
    best = max(members, key=measured.accuracy)
    raise StudyError(
        f"no net of the front reaches {wanted:g} after {criteria.epochs} epochs: the best, "
        f"trial {best.trial} with {best.num_params} parameters, has "
        f"{measured.accuracy(best):.4f} on the validation split; search on, allow more "
        "parameters or train longer"
    )


def _seed(settings: Settings, number: int) -> int:
    return derived_seed(settings.seed, "final", number)


class _Runs:
    """Trains jobs on the engine until all have ended."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        recipe: Recipe,
        metric: Metric,
        show: Show,
        kept: Trainings | None,
    ) -> None:
        self.engine, self.settings = engine, settings
        self.recipe, self.metric = recipe, metric
        self.show, self.kept = show, kept

    def finalists(self, some: Sequence[Candidate], measured: _Measured) -> None:
        """Train each once more on the training split, with a seed of its own."""
        jobs = []
        for number, c in enumerate(some):
            who = f"{c.trial} {c.key}" if is_resized(c) else c.trial
            seed = derived_seed(
                self.settings.seed,
                "promote",
                who,
                self.recipe.epochs,
                measured.count(c),
            )
            jobs.append(self.job(c, number, seed, "search"))
        ends: dict[int, RungReport] = {}
        for job, event in self.run(jobs, some, "finalist"):
            if isinstance(event, Reported):
                ends[job.number] = event.report
        for number, c in enumerate(some):
            measured.add(c, ends[number])

    def final(
        self, winner: Candidate, seeds: int
    ) -> tuple[
        list[float],
        dict[str, np.ndarray],
        list[list[list[int]] | None],
        bool | None,
    ]:
        """Return each seed's test accuracy, the first's weights, each's confusion.

        At last whether the C kernels ran.
        """
        jobs = [
            self.job(winner, number, _seed(self.settings, number), "final")
            for number in range(seeds)
        ]
        ended: dict[int, Finished] = {}
        for job, event in self.run(jobs, [winner] * seeds, "winner"):
            if isinstance(event, Finished):
                ended[job.number] = event
        tests = [ended[number].test_accuracy or 0.0 for number in range(seeds)]
        confusions = [ended[number].test_confusion for number in range(seeds)]
        kernels = all_of(end.kernels for end in ended.values())
        return tests, ended[0].weights or {}, confusions, kernels

    def job(self, candidate: Candidate, number: int, seed: int, mode: Mode) -> Job:
        return Job(
            number=number,
            architecture=candidate.architecture,
            recipe=self.recipe,
            seed=seed,
            rungs=tuple(float(epoch) for epoch in range(1, self.recipe.epochs + 1)),
            mode=mode,
            metric=self.metric,
        )

    def run(
        self, jobs: Sequence[Job], candidates: Sequence[Candidate], stage: str
    ) -> list[tuple[Job, Reported | Finished]]:
        """Train all jobs; return their reports and ends. Any failure is an error."""

        def show(job: Job, event: Reported | Finished) -> None:
            self.show(_news(stage, job, candidates[job.number], event))

        names = [
            f"trial {candidate.trial}" + (" resized" if is_resized(candidate) else "")
            for candidate in candidates
        ]
        return train_all(self.engine, jobs, names, show, self.kept)


def _news(
    stage: str, job: Job, candidate: Candidate, event: Reported | Finished
) -> ProgressEvent:
    return ProgressEvent(
        stage=stage,
        trial=candidate.trial,
        resized=is_resized(candidate),
        num_params=candidate.num_params,
        seed=job.seed,
        report=event.report if isinstance(event, Reported) else None,
        test_accuracy=event.test_accuracy if isinstance(event, Finished) else None,
        last=isinstance(event, Reported) and event.report.rung == len(job.rungs) - 1,
    )
