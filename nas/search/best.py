"""From the front to the winner: finalists, the choice, the full training.

The finalists are trained longer on the training split and chosen by validation
accuracy. The winner is trained anew on training and validation data together, once
for each seed, and the test set is read once a seed, after the last epoch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.candidates.candidate import Candidate, front
from nas.engines import Engine, Finished, Job, Part, Reported
from nas.environment import versions
from nas.errors import StudyError
from nas.search.train_all import train_all
from nas.study.settings import Settings, derived_seed
from nas.training.recipe import Recipe, final_recipe
from nas.training.report import RungReport

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionCriteria:
    """What the user wants: the most accurate net, or the smallest accurate enough.

    ``max_params`` limits both. With ``min_accuracy`` (validation, 0 to 1) it is the
    smallest net of the front that reaches it after the longer training.
    """

    max_params: int
    min_accuracy: float | None = None
    finalists: int = 3
    epochs: int = 15
    seeds: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEvent:
    """A sign of life of a retraining, for whoever shows it."""

    stage: str
    trial: int
    num_params: int
    seed: int
    report: RungReport | None = None
    test_accuracy: float | None = None


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
) -> Winner:
    """Choose the winner among the front's members and train it to the end.

    Raises StudyError when there is nothing to choose from, or no net is accurate
    enough.
    """
    began = time.monotonic()
    members = _members(candidates, criteria, settings)
    runs = _Runs(engine, settings, criteria.epochs, show)
    if criteria.min_accuracy is None:
        finalists = members[-criteria.finalists :]
        measured = runs.finalists(finalists)
        # Of equally accurate ones the smaller.
        winner = max(finalists, key=lambda c: (measured[c.trial], -c.num_params))
    else:
        winner, measured = _smallest_reaching(members, criteria, runs)
    tests, weights = runs.final(winner, criteria.seeds)
    report = {
        "study": settings.name,
        "dataset": settings.dataset,
        "trial": winner.trial,
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
        "val_accuracy": measured[winner.trial],
        "val_accuracy_is": f"after {criteria.epochs} epochs on the training split alone",
        "finalists": [
            {
                "trial": c.trial,
                "num_params": c.num_params,
                "search_val_accuracy": c.val_accuracy,
                "val_accuracy": measured[c.trial],
            }
            for c in members
            if c.trial in measured
        ],
        "recipe": asdict(_recipe(winner, settings, criteria.epochs)),
        "seed_values": [_seed(settings, number) for number in range(criteria.seeds)],
        "weights_seed": _seed(settings, 0),
        "duration_seconds": round(time.monotonic() - began, 1),
        "versions": versions(),
        "hardware": hardware,
    }
    return Winner(candidate=winner, weights=weights, report=report)


def _members(
    candidates: Sequence[Candidate], criteria: SelectionCriteria, settings: Settings
) -> list[Candidate]:
    """Return the front's members that are small enough, smallest first."""
    members = front(c for c in candidates if c.num_params <= criteria.max_params)
    if members:
        return members
    complete = [c for c in candidates if c.state == "complete"]
    if not complete:
        raise StudyError(
            f"the study {settings.name!r} has no fully trained candidate yet: run "
            f"`nas search --study {settings.name}` first"
        )
    least = min(c.num_params for c in complete)
    raise StudyError(
        f"no fully trained candidate has at most {criteria.max_params} parameters: the "
        f"smallest has {least}; give at least --max-params {least}"
    )


def _smallest_reaching(
    members: Sequence[Candidate], criteria: SelectionCriteria, runs: _Runs
) -> tuple[Candidate, dict[int, float]]:
    """Return the smallest member that is accurate enough, and all that was measured.

    Along the front accuracy rises with size, so the place is closed in on from both
    sides, a few members at a time.
    """
    measured: dict[int, float] = {}
    low, high = 0, len(members)  # the sought one's place is in low..high
    while low < high:
        some = min(criteria.finalists, high - low)
        places = sorted(
            {low + (high - low) * (2 * i + 1) // (2 * some) for i in range(some)}
        )
        measured |= runs.finalists([members[place] for place in places])
        reaching = [
            p
            for p in places
            if measured[members[p].trial] >= (criteria.min_accuracy or 0)
        ]
        if reaching:
            high = reaching[0]
        missing = [p for p in places if p < high]
        if missing:
            low = missing[-1] + 1
    if high == len(members):
        best = max(members, key=lambda c: measured.get(c.trial, 0.0))
        raise StudyError(
            f"no net of the front reaches {criteria.min_accuracy:g} after {criteria.epochs} "
            f"epochs: the best, trial {best.trial} with {best.num_params} parameters, "
            f"has {measured[best.trial]:.4f} on the validation split; search on, allow "
            "more parameters or train longer"
        )
    return members[high], measured


def _recipe(candidate: Candidate, settings: Settings, epochs: int) -> Recipe:
    recipe = final_recipe(candidate.num_params, epochs)
    # The search's batches were fitted to the data; no larger ones suit it.
    batch_size = min(recipe.batch_size, settings.recipe.batch_size)
    return replace(recipe, batch_size=batch_size)


def _seed(settings: Settings, number: int) -> int:
    return derived_seed(settings.seed, "final", number)


class _Runs:
    """Trains jobs on the engine until all have ended."""

    def __init__(
        self, engine: Engine, settings: Settings, epochs: int, show: Show
    ) -> None:
        self.engine, self.settings, self.epochs = engine, settings, epochs
        self.show = show

    def finalists(self, some: Sequence[Candidate]) -> dict[int, float]:
        """Return the validation accuracy of each after the longer training, by trial."""
        jobs = [self.job(c, number, 0, "search") for number, c in enumerate(some)]
        last: dict[int, float] = {}
        for job, event in self.run(jobs, some, "finalist"):
            if isinstance(event, Reported):
                last[some[job.number].trial] = event.report.val_accuracy
        return last

    def final(
        self, winner: Candidate, seeds: int
    ) -> tuple[list[float], dict[str, np.ndarray]]:
        """Return the test accuracy of each seed and the first seed's weights."""
        jobs = [self.job(winner, number, number, "final") for number in range(seeds)]
        ended: dict[int, Finished] = {}
        for job, event in self.run(jobs, [winner] * seeds, "winner"):
            if isinstance(event, Finished):
                ended[job.number] = event
        tests = [ended[number].test_accuracy or 0.0 for number in range(seeds)]
        return tests, ended[0].weights or {}

    def job(self, candidate: Candidate, number: int, seed: int, part: Part) -> Job:
        return Job(
            number=number,
            architecture=candidate.architecture,
            recipe=_recipe(candidate, self.settings, self.epochs),
            seed=_seed(self.settings, seed),
            rungs=tuple(float(epoch) for epoch in range(1, self.epochs + 1)),
            part=part,
        )

    def run(
        self, jobs: Sequence[Job], candidates: Sequence[Candidate], stage: str
    ) -> list[tuple[Job, Reported | Finished]]:
        """Train all jobs; return their reports and ends. Any failure is an error."""

        def show(job: Job, event: Reported | Finished) -> None:
            self.show(_news(stage, job, candidates[job.number], event))

        names = [f"trial {candidate.trial}" for candidate in candidates]
        return train_all(self.engine, jobs, names, show)


def _news(
    stage: str, job: Job, candidate: Candidate, event: Reported | Finished
) -> ProgressEvent:
    return ProgressEvent(
        stage=stage,
        trial=candidate.trial,
        num_params=candidate.num_params,
        seed=job.seed,
        report=event.report if isinstance(event, Reported) else None,
        test_accuracy=event.test_accuracy if isinstance(event, Finished) else None,
    )
