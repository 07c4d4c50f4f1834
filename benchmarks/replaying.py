# what is filled has no public way in
"""Made-up trainings that cost no training, and studies that are filled by them.

For what measures the coordinator: scaling.py (workers that sleep) and overhead.py (a
training is over at once). The trainings are those of curves.csv. An epoch that was not
recorded takes as long as a recorded one; loss and error fall on by a power of the epochs.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import made_up_settings, recorded_curves

from nas.engines import Event, Finished, Job, Reported
from nas.training.report import RungReport

# What is heavy is imported where it is needed: 64 workers need none of it.
if TYPE_CHECKING:
    from nas.search.progress import Progress
    from nas.study.settings import Settings
    from nas.study.study import Study

# Images of MNIST's training split.
_TRAIN_SIZE = 50_000
# Loss and error fall with this power of the epochs beyond the recorded ones.
_POWER = -0.4


class Point(NamedTuple):
    """Where a training stood; ``seconds`` since its beginning."""

    epochs: float
    val_accuracy: float
    train_loss: float
    seconds: float


class Recorded(NamedTuple):
    """A recorded training of a net of so many parameters."""

    num_params: int
    points: list[Point]


def read_curves(seconds: float) -> list[Recorded]:
    """Return the whole recorded trainings, where an epoch takes so long in the mean."""
    found = [
        Recorded(
            int(rows[0]["num_params"]),
            [
                Point(
                    float(row["epochs"]),
                    float(row["val_accuracy"]),
                    float(row["train_loss"]),
                    float(row["seconds"]),
                )
                for row in rows
            ],
        )
        for rows in recorded_curves().values()
    ]
    longest = max(len(curve.points) for curve in found)
    whole = [curve for curve in found if len(curve.points) == longest]
    epochs = sum(curve.points[-1].epochs for curve in whole)
    factor = seconds * epochs / sum(curve.points[-1].seconds for curve in whole)
    return [
        Recorded(
            curve.num_params,
            [point._replace(seconds=point.seconds * factor) for point in curve.points],
        )
        for curve in whole
    ]


def reports(job: Job, curves: list[Recorded]) -> list[RungReport]:
    """Return what the training of a job reports.

    It is one of the nine recorded trainings of the nearest sizes, chosen by the net.
    """
    from nas.architecture.cost import count_params

    size = count_params(job.architecture)
    near = sorted(curves, key=lambda c: abs(math.log(c.num_params / size)))[:9]
    digest = hashlib.sha256(job.architecture.key.encode()).digest()
    points = near[digest[0] % len(near)].points
    return [_report(rung, epochs, points) for rung, epochs in enumerate(job.rungs)]


def _report(rung: int, epochs: float, points: list[Point]) -> RungReport:
    # The last recorded point up to there; its loss and error fall on from it.
    known = next((p for p in reversed(points) if p.epochs <= epochs), points[0])
    shrink = min(1.0, (epochs / known.epochs) ** _POWER)
    loss = known.train_loss * shrink
    return RungReport(
        rung=rung,
        epochs=epochs,
        val_accuracy=1 - (1 - known.val_accuracy) * shrink,
        train_loss=loss,
        val_loss=loss,
        seconds=known.seconds * epochs / known.epochs,
    )


class Enough(Exception):  # noqa: N818  # no error
    """A search has come as far as it was wanted to."""


class InstantEngine:
    """Workers whose trainings are over at once; an `Engine`."""

    idle = 1

    def __init__(self, curves: list[Recorded]) -> None:
        """Train by these curves."""
        self._curves = curves
        self._events: list[Event] = []

    def start(self, job: Job) -> None:
        """Report the first rung at once."""
        self._rest: list[Event] = [
            Reported(job.number, report) for report in reports(job, self._curves)
        ]
        self._rest.append(Finished(job.number))
        self._events = [self._rest.pop(0)]
        self.idle = 0

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return the next event."""
        del timeout
        events, self._events = self._events, []
        if events and isinstance(events[0], Finished):
            self.idle = 1
        return events

    def decide(self, job: int, *, proceed: bool) -> None:
        """Report the next rung at once, or be free."""
        del job
        if proceed:
            self._events = [self._rest.pop(0)]
        else:
            self.idle = 1

    def abandon(self, job: int) -> None:
        """Never hang."""

    def close(self) -> None:
        """Have nothing to stop."""


def mnist_settings(name: str) -> Settings:
    """Return the settings of a search on MNIST under 10,000 parameters, by default.

    Every candidate is screened by one epoch; the promising ones get 3 and 15.
    """
    from nas.search.recipes import search_training

    return made_up_settings(
        name=name,
        dataset="mnist",
        input_shape=(1, 28, 28),
        val_size=10_000,
        param_budget=10_000,
        **search_training(None, _TRAIN_SIZE),
    )


def ended(study: Study) -> int:
    """Return how many candidates have come to the end of their screening."""
    counts = study.counts()
    return counts["complete"] + counts["pruned"]


def filled(folder: Path, trials: int, curves: list[Recorded]) -> Path:
    """Return the folder of a search that is half way: so many trials of twice as many.

    They are drawn at random, and screened and promoted by the real loop.
    """
    from nas.search.loop import search
    from nas.study.folders import create

    path = folder / f"filled-{trials}"
    if path.exists():
        return path

    def show(progress: Progress) -> None:
        count = ended(progress.study)
        if count >= trials:
            raise Enough
        if count % 1000 == 0 and count:
            print(f"filling: {count} of {trials}", file=sys.stderr, flush=True)

    with (
        mock.patch("os.fsync"),
        create(path, mnist_settings(path.name)) as study,
        suppress(Enough),
    ):
        search(study, InstantEngine(curves), trials=2 * trials, show=show)
    return path


def use_sampler(study: Study, sampler: str) -> None:
    """Let an open study draw by another sampler than it was created with."""
    study.settings = replace(study.settings, sampler=sampler)
