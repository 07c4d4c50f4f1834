"""Durations of running trainings, and which of them are overdue."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

# Given up after so many timeouts; the first one may be the machine's fault.
_OVERDUE = 2
# Without a limit from the user a training is overdue after so many seconds, or so many
# times the longest that came to its end, whichever is more; before there is one, after
# the first limit.
_LEAST_LIMIT = 600.0
_TIMES_THE_LONGEST = 10
_FIRST_LIMIT = 3600.0
# No more of one round counts as training: the coordinator may have been stopped.
_LONGEST_ROUND = 30.0


class TrainingTimes:
    """The running trainings by the number of their job, and the time of each.

    ``limit`` is the most seconds that one may take, None for the limit above.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._began: dict[int, float] = {}
        # Observed training seconds of each job, and the time of the last observation.
        self._elapsed: dict[int, float] = {}
        self._looked = time.monotonic()
        self._longest: float | None = None
        self._abandoned: set[int] = set()
        self._times_overdue: Counter[int] = Counter()

    def __len__(self) -> int:
        """Return the number of running trainings."""
        return len(self._began)

    def __iter__(self) -> Iterator[int]:
        """Return the running jobs."""
        return iter(self._began)

    def begin(self, job: int) -> None:
        """Start the clock of a training."""
        self._began[job] = time.monotonic()
        self._elapsed[job] = self._looked - time.monotonic()

    def end(self, job: int, *, completed: bool) -> float:
        """Stop the clock of a training, also of one whose worker is gone; return seconds.

        Those that came to their end tell how long others may take.
        """
        elapsed = self._elapsed.pop(job)
        if completed:
            self._longest = max(elapsed, self._longest or 0.0)
        self._abandoned.discard(job)
        return time.monotonic() - self._began.pop(job)

    def look(self) -> None:
        """Add the time since the last round to every training that runs."""
        before, self._looked = self._looked, time.monotonic()
        for job in self._elapsed:
            self._elapsed[job] += min(self._looked - before, _LONGEST_ROUND)

    def overdue(self) -> list[int]:
        """Return newly overdue jobs, whose workers should be killed."""
        limit = self._limit
        if limit is None:
            limit = _FIRST_LIMIT
            if self._longest is not None:
                limit = max(_LEAST_LIMIT, _TIMES_THE_LONGEST * self._longest)
        found = [
            job
            for job, seconds in self._elapsed.items()
            if seconds > limit and job not in self._abandoned
        ]
        self._abandoned.update(found)
        self._times_overdue.update(found)
        return found

    def was_abandoned(self, job: int) -> bool:
        """Return whether a worker was killed because this took too long."""
        return job in self._abandoned

    def failure(self, job: int) -> str | None:
        """Return why a training that took too long has failed; None for another try."""
        if self._times_overdue[job] < _OVERDUE:
            return None
        return f"it took too long {_OVERDUE} times (--trial-time-limit)"
