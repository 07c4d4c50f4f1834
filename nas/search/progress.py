"""Progress of a search: its state, its timings and how it ended."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from nas.candidates.candidate import Candidate
from nas.candidates.promotion import planned_epochs
from nas.study.study import Study


@dataclass(slots=True)
class Timing:
    """Seconds spent by the coordinator, by kind of work."""

    sampling: float = 0.0
    storage: float = 0.0
    waiting: float = 0.0
    reporting: float = 0.0
    total: float = 0.0
    training: float = 0.0
    """Summed over the workers: between a candidate's start and its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a search, for display."""

    study: Study
    """With all that has happened up to now."""
    trials: int
    """The number of finished trials that the study is to have."""
    finished_before: int
    epochs_before: float
    """What had been trained when this run began."""
    seconds: float
    time_limit: float | None = None
    changed: Candidate | None = None
    """The candidate that has changed: begun, reported or ended."""
    failure: str | None = None
    """Why its longer training has just failed."""

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left at this run's pace; None before there is one."""
        settings = self.study.settings
        left = math.inf
        if self.time_limit is not None:
            left = max(0.0, self.time_limit - self.seconds)
        trained = sum(self.study.epochs_trained().values())
        if trained > self.epochs_before:
            planned = planned_epochs(
                settings.promotion,
                settings.levels,
                self.trials,
                always=len(settings.start_from),
            )
            pace = self.seconds / (trained - self.epochs_before)
            left = min(left, pace * max(0.0, planned - trained))
        return None if math.isinf(left) else left


@dataclass(slots=True)
class Outcome:
    """How a search ended, and its times.

    ``reason`` is "done", "target accuracy", "time limit" or "exhausted".
    ``kernels`` tells whether the C kernels did all of its trainings that came to an end.
    """

    reason: str
    timing: Timing = field(default_factory=Timing)
    kernels: bool | None = None


class timed:  # noqa: N801  # reads as a verb where it is used
    """Add the time spent in the block to one of the timing's counters."""

    def __init__(self, timing: Timing, name: str) -> None:
        self.timing, self.name = timing, name

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        spent = getattr(self.timing, self.name) + time.monotonic() - self.began
        setattr(self.timing, self.name, spent)
